package control

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/loop"
	"github.com/ublk-loop/ublk-loop/transfer"
)

// giveKey takes over a device with its key, which comes as the only descriptor of the request.
func (s *Server) giveKey(w http.ResponseWriter, r *http.Request) {
	c, _ := r.Context().Value(connKey{}).(*conn) // set for every request, see handler
	fds := c.take()
	id, sequence, err := pathDevice(r)
	if err == nil && len(fds) != 1 {
		err = fmt.Errorf("%d descriptors instead of that of the key: %w", len(fds), unix.EINVAL)
	}
	if err != nil {
		closeAll(fds)
	} else {
		err = s.giveKeyFrom(id, sequence, os.NewFile(uintptr(fds[0]), "key"))
	}
	s.answer(w, err)
}

// giveKeyFrom takes over a device with the key in f, which it closes. It reads the key before
// it holds up an upgrade.
func (s *Server) giveKeyFrom(id uint32, sequence *uint64, f *os.File) error {
	defer func() { _ = f.Close() }()
	key, err := readKey(f, loop.MaxTableKeyBytes)
	if err != nil {
		return err
	}
	s.changing.enter()
	defer s.changing.leave()
	return s.GiveKey(id, sequence, key)
}

// readKey reads a key of at most limit bytes from a descriptor of a client, to its end. It returns an
// error that wraps EINVAL if the client has not closed its end of a pipe within bodyTimeout.
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
