package process

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/eintr"
)

// Lifeline tells when all processes have ended that have its other end. A process passes that to the
// processes that it starts, so that a caller can wait for processes that it does not know.
type Lifeline struct {
	ours *os.File
}

// NewLifeline returns a lifeline, and its other end. Nothing can be sent through it: the other end is
// that of a pipe for reading, to which nothing is written.
func NewLifeline() (l *Lifeline, theirs *os.File, err error) {
	fds := make([]int, 2)
	if err := unix.Pipe2(fds, unix.O_CLOEXEC); err != nil {
		return nil, nil, fmt.Errorf("make a pipe: %w", err)
	}
	return &Lifeline{os.NewFile(uintptr(fds[1]), "lifeline")}, os.NewFile(uintptr(fds[0]), "lifeline"), nil
}

// Wait waits at most d until no process has the other end, and returns ETIMEDOUT otherwise. A killed
// process has closed it when it no longer has any memory, but may still be closing other files.
func (l *Lifeline) Wait(d time.Duration) error {
	deadline := time.Now().Add(d)
	n := 0
	err := eintr.Repeat(func() (err error) {
		fds := []unix.PollFd{{Fd: int32(l.ours.Fd())}} // POLLERR needs no request
		n, err = unix.Poll(fds, int(max(0, time.Until(deadline)).Milliseconds()))
		return err
	})
	if err == nil && n == 0 {
		err = unix.ETIMEDOUT
	}
	return err
}

// Close closes the lifeline.
func (l *Lifeline) Close() { _ = l.ours.Close() }
