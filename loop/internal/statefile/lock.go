package statefile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/eintr"
)

// Lock is held by who changes what a device is: its size, its server, that
// it exists. Several processes may want to at once, and each reads the state
// before it writes it. The lock (flock(2) of a file beside the state) ends with
// its holder, however that ends.
type Lock struct {
	file *os.File
	path string
}

func lockPath(id uint32) string {
	return filepath.Join(Dir, strconv.FormatUint(uint64(id), 10)+".lock")
}

// Acquire waits until nobody else changes a device.
func Acquire(id uint32) (*Lock, error) {
	if err := os.MkdirAll(Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make state directory: %w", err)
	}
	l, err := lockFile(lockPath(id))
	if err != nil {
		return nil, fmt.Errorf("lock state of device %d: %w", id, err)
	}
	return l, nil
}

// lockFile locks the file at a path. Its last holder has removed it, so the
// one that was waited for may be another by then.
func lockFile(path string) (*Lock, error) {
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC, 0o600)
		if err != nil {
			return nil, err
		}
		if err := eintr.Repeat(func() error { return unix.Flock(int(f.Fd()), unix.LOCK_EX) }); err != nil {
			return nil, errors.Join(err, f.Close())
		}
		held, err := f.Stat()
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		if there, err := os.Stat(path); err == nil && os.SameFile(there, held) {
			return &Lock{f, path}, nil
		}
		if err := f.Close(); err != nil {
			return nil, err
		}
	}
}

// Release lets the next one in. The file goes first: nothing of a device is to
// be left.
func (l *Lock) Release() {
	_ = os.Remove(l.path)
	_ = l.file.Close()
}
