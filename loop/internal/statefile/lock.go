package statefile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/flock"
	"github.com/ublk-loop/ublk-loop/internal/owndir"
)

// Lock must be held to change a device: its size, its server or its existence. Several
// processes may want that at the same time, and each reads the state before it writes it.
// The lock (flock(2) of a file beside the state) ends with its holder, however the holder
// ends.
//
// Each holder also has the shared lock of the directory. If there is no space for the file, the exclusive lock of
// the directory stands for those of all devices: a device can be removed, which may be what makes space.
type Lock struct {
	file      *os.File // nil if the lock is that of the directory
	path      string
	directory *os.File
}

func lockPath(id uint32) string {
	return filepath.Join(Dir, strconv.FormatUint(uint64(id), 10)+lockSuffix)
}

// patience bounds the wait for a lock. A holder can wait for requests in flight, for a file that it writes to the medium, and
// for udev, all of which have shorter bounds. But a stopped process keeps its lock.
const patience = 3 * time.Minute

// Acquire waits until no other process changes the device, and locks it. It returns an error that wraps ETIMEDOUT, and names
// the other process, if that takes too long.
func Acquire(id uint32) (*Lock, error) {
	if err := owndir.Make(Dir); err != nil {
		return nil, fmt.Errorf("make state directory: %w", err)
	}
	l, err := lockState(lockPath(id), time.Now().Add(patience))
	if err != nil {
		return nil, fmt.Errorf("lock state of device %d: %w", id, err)
	}
	return l, nil
}

// lockState locks the file at a path, or its directory. All waits together end at the deadline.
func lockState(path string, deadline time.Time) (*Lock, error) {
	directory, err := os.OpenFile(filepath.Dir(path), os.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err := flock.Shared(directory, time.Until(deadline)); err != nil {
		return nil, errors.Join(err, directory.Close())
	}
	l, err := lockFile(path, deadline)
	if err == nil {
		l.directory = directory
		return l, nil
	}
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		// The kernel gives up the shared lock first, so that two processes do not wait for each other.
		if err = flock.Exclusive(directory, time.Until(deadline)); err == nil {
			return &Lock{path: path, directory: directory}, nil
		}
	}
	return nil, errors.Join(err, directory.Close())
}

// Sweep removes the files of locks whose holders were killed, and empty reports of crashes of devices that are gone. A file
// that stays does no harm.
func Sweep() {
	sweepReports(Dir)
	sweep(Dir)
}

// sweepReports removes the empty reports of devices without a record. A server makes the file after it has started its device,
// which another process may have removed by then.
func sweepReports(dir string) {
	paths, _ := filepath.Glob(filepath.Join(dir, "[0-9]*"+crashSuffix)) // the pattern is valid
	for _, path := range paths {
		id := strings.TrimSuffix(path, crashSuffix)
		if info, err := os.Lstat(path); !isMissing(id+recordSuffix) || err != nil || !info.Mode().IsRegular() || info.Size() > 0 {
			continue
		}
		l := tryLock(id + lockSuffix)
		if l == nil {
			continue
		}
		if isMissing(id + recordSuffix) {
			_ = os.Remove(path)
		}
		l.Release()
	}
}

func isMissing(path string) bool {
	_, err := os.Lstat(path)
	return errors.Is(err, os.ErrNotExist)
}

// tryLock locks the file at a path, or returns nil if that would have to wait.
func tryLock(path string) *Lock {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil || !flock.IsAt(f, path) {
		_ = f.Close() // it has a holder, or is gone
		return nil
	}
	return &Lock{file: f, path: path}
}

func sweep(dir string) {
	paths, _ := filepath.Glob(filepath.Join(dir, "[0-9]*"+lockSuffix)) // the pattern is valid
	for _, path := range paths {
		if l := tryLock(path); l != nil {
			l.Release()
		}
	}
}

// lockFile locks the file at a path. The last holder has removed the file, so that the
// locked file may no longer be the one at the path. lockFile then tries again.
func lockFile(path string, deadline time.Time) (*Lock, error) {
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, err
		}
		if err := flock.Exclusive(f, time.Until(deadline)); err != nil {
			return nil, errors.Join(err, f.Close())
		}
		if flock.IsAt(f, path) {
			return &Lock{file: f, path: path}, nil
		}
		if err := f.Close(); err != nil {
			return nil, err
		}
	}
}

// Release lets the next process in. It removes the file first, because a device must
// leave no file.
func (l *Lock) Release() {
	if l.file != nil {
		_ = os.Remove(l.path)
		_ = l.file.Close()
	}
	if l.directory != nil { // as of a lock of lockState
		_ = l.directory.Close()
	}
}
