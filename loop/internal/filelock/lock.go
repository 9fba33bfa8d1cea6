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

// The modes.
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
// Holder, which belongs to the lock from then on, unless Adopt returns an error. It returns
// an error that wraps EBUSY while the rings of that program work on the object.
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
	turn, err := takeTurn(dir)
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
	if !isAt(passed, filepath.Join(l.dir, l.name)) {
		return fmt.Errorf("the lock that was passed is another file's: %w", unix.ESTALE)
	}
	return nil
}

// RingFD returns a descriptor to be registered with each ring that works on the object.
func (l *Lock) RingFD() int { return int(l.rings.Fd()) }

// Holder returns what has the lock. The program that takes the place of this one gets it
// for Adopt.
func (l *Lock) Holder() *os.File { return l.holder }

// Disown undoes Adopt: the Holder is the caller's again.
func (l *Lock) Disown() {
	l.holder = nil
	l.drop()
}

// Idle says that no ring works on the object. The close of a ring does not at once: up to
// Linux 6.12 a ring keeps what was in its table until all has ended that was under way on
// it at the time, on other objects too.
func (l *Lock) Idle() { _ = lock(l.rings, everything, unlocked) }

// Release ends the lock. The file is removed if nobody else has a lock in it.
func (l *Lock) Release() error {
	turn, err := takeTurn(l.dir)
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

// drop closes what is open.
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
	turn, err := takeTurn(dir)
	if err != nil {
		return err
	}
	defer func() { _ = turn.Close() }()
	defer func() { _ = os.Remove(dir) }()
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
	_ = os.Remove(filepath.Dir(path)) // unless it has others
	return nil
}

// takeTurn makes the directory, and waits until no other process opens or removes files of
// locks. The turn ends with the close of the result.
func takeTurn(dir string) (*os.File, error) {
	for {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("make the directory of locks: %w", err)
		}
		d, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if errors.Is(err, os.ErrNotExist) {
			continue // the last lock was released in between
		}
		if err != nil {
			return nil, fmt.Errorf("open the directory of locks: %w", err)
		}
		if err := eintr.Repeat(func() error { return unix.Flock(int(d.Fd()), unix.LOCK_EX) }); err != nil {
			return nil, errors.Join(fmt.Errorf("wait for other locks: %w", err), d.Close())
		}
		if isAt(d, dir) {
			return d, nil
		}
		_ = d.Close() // another has removed it, and its turn is nobody's
	}
}

// isAt reports whether an open file is what a path names.
func isAt(f *os.File, path string) bool {
	is, err := f.Stat()
	if err != nil {
		return false
	}
	there, err := os.Stat(path)
	return err == nil && os.SameFile(is, there)
}
