package apart

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/eintr"
	"github.com/ublk-loop/ublk-loop/loop/serving"
)

// startingRings lets a process ask for rings on a pipe, in place of what the kernel has for that. It returns the end of the pipe
// to write to, and the result of the start, which comes when the process has said whether it can have rings.
func startingRings(t *testing.T, p *Process, its socket) (requests *os.File, started <-chan error) {
	t.Helper()
	theirs, requests, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = requests.Close() })
	if err := its.say(nil, int(theirs.Fd()), int(requests.Fd())); err != nil {
		t.Fatal(err)
	}
	_ = theirs.Close()
	result := make(chan error, 1)
	receiving(t, p, its, func() { result <- p.startRings() })
	return requests, result
}

// awaitReader waits until a pipe has no reader.
func awaitReader(t *testing.T, pipe *os.File) {
	t.Helper()
	fds := []unix.PollFd{{Fd: int32(pipe.Fd())}}
	const milliseconds = 10_000
	err := eintr.Repeat(func() error {
		_, err := unix.Poll(fds, milliseconds)
		return err
	})
	if err != nil || fds[0].Revents&unix.POLLERR == 0 {
		t.Fatalf("the pipe has a reader: events %#x, error %v", fds[0].Revents, err)
	}
}

// If the server cannot make rings, its error is in that of the process, at the start and later, and is there for the log.
func TestServerFailsToMakeRings(t *testing.T) {
	p, its := pair(t)
	requests, started := startingRings(t, p, its)
	if _, err := requests.Write([]byte{0}); err != nil {
		t.Fatal(err)
	}
	awaitReader(t, requests)
	if err := its.say(unix.ENOSYS); err != nil {
		t.Fatal(err)
	}
	const want = unix.ENOTTY // a pipe gives no notifications
	if err := <-started; !errors.Is(err, want) || !errors.Is(err, unix.ENOSYS) {
		t.Errorf("the start returns %v, want ENOSYS and ENOTTY", err)
	}
	if err := p.AwaitRingless(); !errors.Is(err, want) {
		t.Errorf("rings end with %v, want ENOTTY", err)
	}
	receiving(t, p, its, p.watch)
	for _, refused := range []unix.Errno{unix.ENOSYS, unix.ENOMEM} {
		receiving(t, p, its, func() {
			if r, _, err := its.receiveRequest(serving.MaxFDs); err == nil {
				_ = its.sendReport(answerOf(r.ID, refused))
			}
		})
		_, err := p.Device().Serve(&serving.Work{File: &serving.File{}})
		if !errors.Is(err, refused) || errors.Is(err, want) != (refused == unix.ENOSYS) {
			t.Errorf("a device that fails with %v: %v", refused, err)
		}
	}
}

func answerOf(id uint64, err error) report {
	r := reportOf(err)
	r.ID, r.Answer = id, &serving.Answer{}
	return r
}

// The end of the start is not an error.
func TestLastRing(t *testing.T) {
	p, its := pair(t)
	_, started := startingRings(t, p, its)
	if err := its.say(nil); err != nil {
		t.Fatal(err)
	}
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	p.only = p.Device()
	p.Settle()
	if err := p.AwaitRingless(); err != nil {
		t.Errorf("rings end with %v", err)
	}
}
