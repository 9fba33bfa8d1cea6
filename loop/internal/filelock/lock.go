package filelock

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/eintr"
	"github.com/ublk-loop/ublk-loop/internal/identity"
)

// Mode says who else may have a range.
type Mode int16

const (
	Exclusive Mode = unix.F_WRLCK // no other lock
	Shared    Mode = unix.F_RDLCK // other shared locks
)

// Lock is a lock on a range of a file or disk.
type Lock struct {
	dir    string
	name   string   // in dir
	holder *os.File // has the lock that belongs to the process
	rings  *os.File // has the lock that belongs to the rings
}

// Acquire locks a range of an object, in a directory that it makes. It returns an error
// that wraps EBUSY if another server has a part of the range, or still works on it.
func Acquire(dir string, object identity.File, r Range, mode Mode) (*Lock, error) {
	return acquire(dir, object, nil, func(l *Lock) error {
		at := sectorsOf(object, r)
		if err := lock(l.holder, at, mode); err != nil {
			return err
		}
		return lock(l.rings, at.ofRings(), mode)
	})
}

// Adopt takes over a lock from the program whose place this one has taken: passed is its
// Pass, which belongs to the lock from then on, unless Adopt returns an error. It returns an
// error that wraps EBUSY while the rings of that program work on the object.
func Adopt(dir string, object identity.File, r Range, mode Mode, passed *os.File) (*Lock, error) {
	return acquire(dir, object, passed, func(l *Lock) error {
		at := sectorsOf(object, r)
		if err := lock(l.holder, at, mode); err != nil { // it has been, by the same holder
			return err
		}
		return lock(l.rings, at.ofRings(), mode)
	})
}

// acquire opens the file of an object, and has take lock ranges of it.
func acquire(dir string, object identity.File, passed *os.File, take func(*Lock) error) (*Lock, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the directory of locks: %w", err)
	}
	turn, err := waitForTurn(dir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = turn.Close() }()
	l := &Lock{dir: dir, name: nameOf(object), holder: passed}
	if passed == nil {
		l.holder, err = l.open()
	} else {
		err = l.isFor(passed)
	}
	if err == nil {
		l.rings, err = l.open()
	}
	if err == nil {
		err = take(l)
	}
	if err != nil {
		if passed != nil {
			l.holder = nil // it is still the caller's
		}
		l.drop()
		return nil, fmt.Errorf("lock: %w", err)
	}
	return l, nil
}

func (l *Lock) open() (*os.File, error) {
	return os.OpenFile(filepath.Join(l.dir, l.name), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
}

// isFor returns an error that wraps ESTALE if a file is not the one of the lock.
func (l *Lock) isFor(passed *os.File) error {
	is, err := passed.Stat()
	if err != nil {
		return err
	}
	if want, err := os.Stat(filepath.Join(l.dir, l.name)); err != nil || !os.SameFile(is, want) {
		return fmt.Errorf("the lock that was passed is another file's: %w", unix.ESTALE)
	}
	return nil
}

// RingFD returns a descriptor to be registered with each ring that works on the object.
func (l *Lock) RingFD() int { return int(l.rings.Fd()) }

// Pass returns a descriptor for Adopt, which keeps the lock when this process closes its
// own.
func (l *Lock) Pass() (*os.File, error) {
	fd, err := unix.FcntlInt(l.holder.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(uintptr(fd), l.name), nil
}

// Idle says that no ring works on the object. The close of a ring does not at once: up to
// Linux 6.12 a ring keeps what was in its table until all has ended that was under way on
// it at the time, on other objects too.
func (l *Lock) Idle() { _ = lock(l.rings, everything, unlocked) }

// Release ends the lock. The file is removed if nobody else has a lock in it.
func (l *Lock) Release() error {
	turn, err := waitForTurn(l.dir)
	if err != nil {
		l.drop()
		return err
	}
	defer func() { _ = turn.Close() }()
	defer l.drop()
	if err := errors.Join(lock(l.holder, everything, unlocked), l.rings.Close()); err != nil {
		return err
	}
	return removeUnused(l.holder, filepath.Join(l.dir, l.name))
}

// drop closes what is open. A lock that was passed stays with the other descriptor.
func (l *Lock) drop() {
	for _, f := range []*os.File{l.holder, l.rings} {
		if f != nil {
			_ = f.Close()
		}
	}
}

// Forget removes the file of an object whose server was killed, unless somebody has a lock
// in it.
func Forget(dir string, object identity.File) error {
	turn, err := waitForTurn(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = turn.Close() }()
	path := filepath.Join(dir, nameOf(object))
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	return removeUnused(f, path)
}

// removeUnused removes an open file of locks if it has none. The caller has the turn.
func removeUnused(f *os.File, path string) error {
	used, err := isLocked(f)
	if err != nil || used {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove a lock: %w", err)
	}
	return nil
}

// waitForTurn waits until no other process opens or removes files of locks. The turn ends
// with the close of the result.
func waitForTurn(dir string) (*os.File, error) {
	d, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open the directory of locks: %w", err)
	}
	if err := eintr.Repeat(func() error { return unix.Flock(int(d.Fd()), unix.LOCK_EX) }); err != nil {
		return nil, errors.Join(fmt.Errorf("wait for other locks: %w", err), d.Close())
	}
	return d, nil
}
