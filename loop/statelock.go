package loop

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// stateLock is held by who changes what a device is: its size, its server, that
// it exists. Several processes may want to at once, and each reads the state
// before it writes it. The lock (flock(2) of a file beside the state) ends with
// its holder, however that ends.
type stateLock struct {
	file *os.File
	path string
}

func lockPath(id uint32) string {
	return filepath.Join(stateDir, strconv.FormatUint(uint64(id), 10)+".lock")
}

// lockState waits until nobody else changes device id.
func lockState(id uint32) (*stateLock, error) {
	if err := os.MkdirAll(stateDir, 0o700); err != nil {
		return nil, fmt.Errorf("make state directory: %w", err)
	}
	l, err := lockPathOf(lockPath(id))
	if err != nil {
		return nil, fmt.Errorf("lock state of device %d: %w", id, err)
	}
	return l, nil
}

// lockPathOf locks the file at a path. Its last holder has removed it, so the
// one that was waited for may be another by then.
func lockPathOf(path string) (*stateLock, error) {
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC, 0o600)
		if err != nil {
			return nil, err
		}
		if err := flock(int(f.Fd()), unix.LOCK_EX); err != nil {
			return nil, errors.Join(err, f.Close())
		}
		held, err := f.Stat()
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		if there, err := os.Stat(path); err == nil && os.SameFile(there, held) {
			return &stateLock{f, path}, nil
		}
		if err := f.Close(); err != nil {
			return nil, err
		}
	}
}

// release lets the next one in. The file goes first: nothing of a device is to
// be left.
func (l *stateLock) release() {
	_ = os.Remove(l.path)
	_ = l.file.Close()
}
