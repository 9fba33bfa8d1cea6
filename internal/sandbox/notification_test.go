package sandbox

import (
	"errors"
	"io"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ring"
)

// pipe returns the ends of a pipe, which the test closes if they are open at its end.
func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = r.Close(), w.Close() })
	return r, w
}

// polls makes a function see each poll for the listener, until the end of the test. It returns true if it has answered the poll itself.
func polls(t *testing.T, see func(fds []unix.PollFd) (done bool)) {
	t.Helper()
	real := poll
	t.Cleanup(func() { poll = real })
	poll = func(fds []unix.PollFd, timeout int) (int, error) {
		if see(fds) {
			return 1, nil
		}
		return real(fds, timeout)
	}
}

// The wait for a call ends with a call, with the last process, and with the stop.
func TestAwaitNotification(t *testing.T) {
	for name, tt := range map[string]struct {
		occur func(listener, stop *os.File)
		want  error
	}{
		"call":    {func(l, _ *os.File) { _, _ = l.Write([]byte("x")) }, nil},
		"hang-up": {func(l, _ *os.File) { _ = l.Close() }, io.EOF},
		"stop":    {func(_, s *os.File) { _, _ = s.Write([]byte("x")) }, io.EOF},
	} {
		t.Run(name, func(t *testing.T) {
			listener, occurs := pipe(t)
			stop, stops := pipe(t)
			tt.occur(occurs, stops)
			if err := awaitNotification(int(listener.Fd()), int(stop.Fd())); !errors.Is(err, tt.want) {
				t.Errorf("error %v, want %v", err, tt.want)
			}
		})
	}
}

// An error of the listener is neither its end nor the lack of a call. The kernel reports it when a signal comes while it waits for
// a lock.
func TestErrorOfListener(t *testing.T) {
	listener, calls := pipe(t)
	stop, _ := pipe(t)
	if _, err := calls.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	errs := 0
	polls(t, func(fds []unix.PollFd) bool {
		if errs++; errs > 3 {
			return false
		}
		fds[0].Revents = unix.POLLERR
		return true
	})
	if err := awaitNotification(int(listener.Fd()), int(stop.Fd())); err != nil || errs != 4 {
		t.Errorf("after %d polls error %v, want nil after 4", errs, err)
	}
}

// Close ends a Serve that waits, and one that comes later. The listener is closed then, so that no process waits for it.
func TestCloseEndsServe(t *testing.T) {
	for name, waits := range map[string]bool{"waits": true, "comes later": false} {
		t.Run(name, func(t *testing.T) {
			listener, calls := pipe(t)
			fd, err := unix.FcntlInt(listener.Fd(), unix.F_DUPFD_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			_ = listener.Close()
			layouts, err := unix.Open(os.DevNull, unix.O_WRONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			s, err := NewRingServer(&ring.Restrictions{}, RingServerFDs{fd, layouts})
			if err != nil {
				t.Fatal(err)
			}
			waiting := make(chan struct{})
			polls(t, func([]unix.PollFd) bool { close(waiting); return false })
			served := make(chan error, 1)
			if waits {
				go func() { served <- s.Serve() }() // received below
				<-waiting
				s.Close()
			} else {
				s.Close()
				served <- s.Serve()
			}
			select {
			case err := <-served:
				if err != nil {
					t.Errorf("Serve returns %v", err)
				}
			case <-time.After(10 * time.Second):
				t.Fatal("Serve goes on")
			}
			if _, err := calls.Write([]byte("x")); !errors.Is(err, unix.EPIPE) {
				t.Errorf("a write to the listener returns %v, want EPIPE", err)
			}
		})
	}
}
