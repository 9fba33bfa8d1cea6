package filelock

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/flock"
	"github.com/ublk-loop/ublk-loop/internal/identity"
	"github.com/ublk-loop/ublk-loop/internal/owndir"
)

// Mode says which other locks a range allows.
type Mode int16

// These are the modes.
const (
	Exclusive Mode = unix.F_WRLCK // allows no other lock
	Shared    Mode = unix.F_RDLCK // allows other shared locks
)

// Lock is a lock on a range of a file or disk.
type Lock struct {
	dir    string
	name   string   // file name in dir
	holder *os.File // holds the lock of the process
	rings  *os.File // holds the lock of the rings
	mode   Mode
}

// Acquire locks a range of an object. It makes dir if necessary. It returns an error that
// wraps EBUSY if another server has a part of the range, or if its operations on it are
// still running. If that server was killed, Acquire waits for them, as [Forget] does.
func Acquire(dir string, object identity.File, r Range, mode Mode) (l *Lock, err error) {
	at := sectorsOf(object, r)
	err = awaitRings(func() (ringsOnly bool, err error) {
		l, err = acquire(dir, object, mode, nil, func(l *Lock) error { return l.lockBoth(at, mode) })
		return errors.Is(err, errRings), err
	})
	return l, err
}

// errRings is the error for a range that only rings have locked: their process has ended, or has released the lock.
var errRings = fmt.Errorf("operations of a process that has ended still run: %w", unix.EBUSY)

// lockBoth locks a range for the process and for its rings.
func (l *Lock) lockBoth(at sectors, mode Mode) error {
	if err := lock(l.holder, at, mode); err != nil {
		return err
	}
	err := lock(l.rings, at.ofRings(), mode)
	if errors.Is(err, unix.EBUSY) {
		return errRings
	}
	return err
}

// Adopt takes over a lock from the program that this one has replaced. passed is that
// lock's Holder. The new lock owns it, unless Adopt returns an error. Adopt returns an
// error that wraps EBUSY while the rings of the old program work on the object.
func Adopt(dir string, object identity.File, r Range, mode Mode, passed *os.File) (*Lock, error) {
	// The same holder has locked the range before, so that only the rings of the old program can be in the way.
	return acquire(dir, object, mode, passed, func(l *Lock) error { return l.lockBoth(sectorsOf(object, r), mode) })
}

// acquire opens the file of an object, and calls take to lock ranges of it.
func acquire(dir string, object identity.File, mode Mode, passed *os.File, take func(*Lock) error) (*Lock, error) {
	turn, err := takeTurn(dir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = turn.Close() }()
	l := &Lock{dir: dir, name: nameOf(object), holder: passed, mode: mode}
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
			l.holder = nil // the caller still owns it
		}
		l.drop()
		return nil, fmt.Errorf("lock: %w", err)
	}
	return l, nil
}

func (l *Lock) open() (*os.File, error) {
	return os.OpenFile(filepath.Join(l.dir, l.name), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
}

// isFor returns an error that wraps ESTALE if passed is not the file of the lock.
func (l *Lock) isFor(passed *os.File) error {
	if !flock.IsAt(passed, filepath.Join(l.dir, l.name)) {
		return fmt.Errorf("the passed lock belongs to another file: %w", unix.ESTALE)
	}
	return nil
}

// Share makes an exclusive lock on all of an object a shared one.
func (l *Lock) Share(object identity.File) error {
	at := sectorsOf(object, Range{})
	if err := errors.Join(lock(l.holder, at, Shared), lock(l.rings, at.ofRings(), Shared)); err != nil {
		return fmt.Errorf("share the lock: %w", err)
	}
	l.mode = Shared
	return nil
}

// IsHeld reports whether a server, or a ring of one that has ended, has a lock on a part of
// an object.
func IsHeld(dir string, object identity.File) (bool, error) {
	f, err := os.OpenFile(filepath.Join(dir, nameOf(object)), os.O_RDWR|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer func() { _ = f.Close() }()
	return isLocked(f, everything)
}

// HasNeighbours reports whether another server has a lock on another part of the object,
// in a mode that would not allow this one on the same part.
func (l *Lock) HasNeighbours() (bool, error) { return conflicts(l.holder, ofProcesses, l.mode) }

// RingFD returns a descriptor for registration with each ring that works on the object.
func (l *Lock) RingFD() int { return int(l.rings.Fd()) }

// OfRings returns a lock of which only RingFD may be called, for a process that serves the rings
// of a lock that another process holds.
func OfRings(rings *os.File) *Lock { return &Lock{rings: rings} }

// Holder returns the file that holds the lock of the process. The program that replaces
// this one gets it for Adopt.
func (l *Lock) Holder() *os.File { return l.holder }

// Change changes the mode of a lock on a range of an object. It returns an error that wraps
// EBUSY, and changes nothing, if another lock prevents that. It waits as Acquire does.
func (l *Lock) Change(r Range, object identity.File, mode Mode) error {
	at := sectorsOf(object, r)
	return awaitRings(func() (ringsOnly bool, err error) {
		err = l.change(at, mode)
		return errors.Is(err, errRings), err
	})
}

func (l *Lock) change(at sectors, mode Mode) error {
	turn, err := takeTurn(l.dir)
	if err != nil {
		return err
	}
	defer func() { _ = turn.Close() }()
	err = l.lockBoth(at, mode)
	if errors.Is(err, errRings) && mode == Exclusive {
		err = errors.Join(err, lock(l.holder, at, Shared))
	}
	return err
}

// Disown undoes Adopt: the caller owns the Holder again.
func (l *Lock) Disown() {
	l.holder = nil
	l.drop()
}

// Idle releases the lock of the rings, because no ring works on the object. Closing a
// ring does not release it at once: up to Linux 6.12 a ring keeps the files of its table
// until all operations that were running then have ended, including those on other
// objects.
func (l *Lock) Idle() { _ = lock(l.rings, everything, unlocked) }

// Release releases the lock. It removes the file if no other lock is in it, and waits as [Forget] does
// for the rings of a process that was killed.
func (l *Lock) Release() error {
	defer l.drop()
	if err := errors.Join(lock(l.holder, everything, unlocked), l.rings.Close()); err != nil {
		return err
	}
	return removeIdle(l.dir, func() ([]string, error) { return []string{l.name}, nil })
}

// CloseFiles closes the files of a lock of OfRings.
func (l *Lock) CloseFiles() { l.drop() }

// drop closes the files of the lock.
func (l *Lock) drop() {
	for _, f := range []*os.File{l.holder, l.rings} {
		if f != nil {
			_ = f.Close()
		}
	}
}

// turnPatience bounds the wait for a turn. The others last for a moment, unless a process is stopped in one, or a file
// system does not answer.
const turnPatience = 20 * time.Second

// takeTurn makes the directory, which is in a private one, and waits until no other process
// opens or removes files of locks. Closing the result ends the turn.
func takeTurn(dir string) (*os.File, error) { return takeTurnWithin(dir, turnPatience) }

func takeTurnWithin(dir string, patience time.Duration) (*os.File, error) {
	if err := owndir.Make(filepath.Dir(dir)); err != nil {
		return nil, fmt.Errorf("make the directory of locks: %w", err)
	}
	for deadline := time.Now().Add(patience); ; {
		err := os.MkdirAll(dir, 0o700)
		if errors.Is(err, os.ErrExist) && !isOccupied(err) {
			continue // it was removed while MkdirAll looked at it
		}
		if err != nil {
			return nil, fmt.Errorf("make the directory of locks: %w", err)
		}
		d, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if errors.Is(err, os.ErrNotExist) {
			continue // the last lock was released meanwhile
		}
		if err != nil {
			return nil, fmt.Errorf("open the directory of locks: %w", err)
		}
		if err := flock.Exclusive(d, time.Until(deadline)); err != nil {
			return nil, errors.Join(fmt.Errorf("wait for other locks: %w", err), d.Close())
		}
		if flock.IsAt(d, dir) {
			return d, nil
		}
		_ = d.Close() // another process has removed the directory, so that this turn is worthless
	}
}

// isOccupied reports whether an error of MkdirAll names a path where there is something else than a
// directory, such as a link that leads nowhere.
func isOccupied(err error) bool {
	var at *os.PathError
	if !errors.As(err, &at) {
		return true
	}
	there, err := os.Lstat(at.Path)
	return err == nil && !there.IsDir()
}
