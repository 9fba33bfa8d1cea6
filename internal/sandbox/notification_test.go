package sandbox

import (
	"errors"
	"io"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// An error of the descriptor is not its end. The kernel reports an error when a signal comes while it waits for a lock.
func TestErrorOfListener(t *testing.T) {
	for name, tt := range map[string]struct {
		keep int // the end of a pipe that stays open
		want error
	}{"hang-up": {0, io.EOF}, "error": {1, unix.EAGAIN}} {
		t.Run(name, func(t *testing.T) {
			var pipe [2]int
			if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
				t.Fatal(err)
			}
			defer func() { _ = unix.Close(pipe[tt.keep]) }()
			if err := unix.Close(pipe[1-tt.keep]); err != nil {
				t.Fatal(err)
			}
			if err := (&notification{}).receive(pipe[tt.keep], 0); !errors.Is(err, tt.want) {
				t.Errorf("error %v, want %v", err, tt.want)
			}
		})
	}
}

// If Go's poller does not wait for the listener, a thread does. A timer, which knows no calls, can be read later.
func TestListenerWithoutPoller(t *testing.T) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	timer := os.NewFile(uintptr(fd), "timer") // it blocks, so the poller does not have it
	defer func() { _ = timer.Close() }()
	later := unix.ItimerSpec{Value: unix.NsecToTimespec((200 * time.Millisecond).Nanoseconds())}
	if err := unix.TimerfdSettime(fd, 0, &later, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := receiveNotification(timer); !errors.Is(err, unix.ENOTTY) {
		t.Errorf("error %v, want ENOTTY", err)
	}
}
