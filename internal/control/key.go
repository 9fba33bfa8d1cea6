package control

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/transfer"
)

// readKey reads a key of at most limit bytes from a descriptor of a client, to its end. It
// returns an error that
// wraps EINVAL if the client has not closed its end of a pipe within bodyTimeout.
func readKey(f *os.File, limit int) (*transfer.Secret, error) {
	key, err := transfer.ReadSecret(&timedReader{f, time.Now().Add(bodyTimeout)}, limit)
	if err != nil {
		return nil, fmt.Errorf("read the key: %w", err)
	}
	return key, nil
}

// timedReader reads a file until a deadline. A deadline of os.File would make the pipe
// non-blocking for its other users, because they share its flags.
type timedReader struct {
	file     *os.File
	deadline time.Time
}

// Read implements io.Reader.
func (r *timedReader) Read(p []byte) (int, error) {
	for {
		fds := []unix.PollFd{{Fd: int32(r.file.Fd()), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, max(int(time.Until(r.deadline).Milliseconds()), 0))
		switch {
		case n > 0:
			return r.file.Read(p)
		case err != nil && !errors.Is(err, unix.EINTR):
			return 0, os.NewSyscallError("poll", err)
		case !time.Now().Before(r.deadline):
			return 0, fmt.Errorf("its end did not come within %v: %w", bodyTimeout, unix.EINVAL)
		}
	}
}
