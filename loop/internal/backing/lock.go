package backing

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/eintr"
	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/internal/identity"
	"github.com/ublk-loop/ublk-loop/loop/internal/filelock"
)

// lock keeps other servers away from the device's part. A file or disk that is written to is locked exclusively,
// and a file that is only read is locked against writers, and so is a disk with Options.Unchanged. passed is the lock of the
// program that this one has replaced, or nil. A disk is also claimed at its open, see
// reopen.
func (b *Backing) lock(o *Options, passed *os.File) error {
	if o.Shared || b.IsDisk && b.ReadOnly && !o.Unchanged {
		return nil
	}
	mode, busy := b.lockMode()
	var err error
	if passed != nil {
		b.Lock, err = filelock.Adopt(o.LockDir, b.Identity, o.Lock, mode, passed)
	} else {
		b.Lock, err = filelock.Acquire(o.LockDir, b.Identity, o.Lock, mode)
	}
	switch {
	case errors.Is(err, unix.EBUSY):
		return hint.Add(busy,
			"ublk-loop list FILE shows the device that has it; with {shared} two writers overwrite each other's data")
	case err != nil:
		return hint.Add(err, "use {shared} to do without the lock")
	}
	if !b.IsDisk {
		b.tellOthers()
	}
	return nil
}

// lockMode returns the mode of the backing's lock, and the error for a part that others have locked.
func (b *Backing) lockMode() (mode filelock.Mode, busy error) {
	mode, holder := filelock.Exclusive, "another reader or writer"
	if b.ReadOnly {
		mode, holder = filelock.Shared, "a writer"
	}
	return mode, fmt.Errorf("already in use by %s: %w", holder, unix.EBUSY)
}

// Claim keeps servers away from an open file or disk, as a device would, while a program without a
// device uses it. It returns an error that wraps EBUSY if a server has it in a way that excludes
// this use, and EPERM if the program is to write and stores need the file. release ends the claim.
//
// Only root can see the locks of servers. For other users Claim only looks for stores.
func Claim(lockDir string, file *os.File, readOnly bool) (release func() error, err error) {
	b := &Backing{Path: file.Name(), ReadOnly: readOnly}
	b.use(file)
	if b.Identity, err = identity.OfDescriptor(b.FD); err != nil {
		return nil, err
	}
	b.IsDisk = b.Identity.IsDisk
	release = func() error { return nil }
	mode, busy := b.lockMode()
	switch lock, err := filelock.Acquire(lockDir, b.Identity, filelock.Range{}, mode); {
	case err == nil:
		release = lock.Release
	case errors.Is(err, unix.EBUSY):
		return nil, fmt.Errorf("open %s: %w", b.Path, busy)
	case os.Geteuid() == 0 && !errors.Is(err, unix.EROFS):
		return nil, err
	}
	if readOnly {
		return release, nil
	}
	if err := b.CheckStores(nil); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", b.Path, err), release())
	}
	return release, nil
}

// tellOthers takes the lock that other programs check. If one of them has it, the server
// continues without it, because otherwise a user who may only read the file could block
// the server.
func (b *Backing) tellOthers() { _ = flock(b.FD, b.flockMode()) }

func (b *Backing) flockMode() int {
	if b.ReadOnly {
		return unix.LOCK_SH
	}
	return unix.LOCK_EX
}

// Unlock releases the lock of a backing without running operations. Closing the backing
// does not release the lock at once: up to Linux 6.12 a ring keeps the files of its table
// until all operations that were running then have ended, including those on other files.
func (b *Backing) Unlock() {
	if b.Lock != nil {
		b.Lock.Idle()
	}
	if !b.IsDisk {
		_ = flock(b.FD, unix.LOCK_UN)
	}
}

// LockedByOthers reports whether another program has locked the file of OpenPath in a way
// that conflicts with a device (flock(2), fcntl(2)). For a read-only device only locks of
// writers conflict. It returns false for a disk, and for a file whose lock in lockDir is
// taken: then the lock of the file may be a server's own.
func LockedByOthers(lockDir string, file *os.File, readOnly bool) (bool, error) {
	if err := checkKind(int(file.Fd())); err != nil {
		return false, err
	}
	fd, err := reopenQuietly(file, unix.O_RDONLY)
	if err != nil {
		return false, err
	}
	b := &Backing{ReadOnly: readOnly}
	b.use(os.NewFile(uintptr(fd), file.Name()))
	defer func() { _ = b.Close() }()
	if locked, err := b.isLockedByOthers(); err != nil || !locked {
		return false, err
	}
	object, err := identity.OfDescriptor(b.FD)
	if err != nil {
		return false, err
	}
	if ours, err := filelock.IsHeld(lockDir, object); err != nil || ours {
		return false, err
	}
	// The ring of a killed server may have ended between the two answers.
	return b.isLockedByOthers()
}

// isLockedByOthers reports whether the file has a conflicting lock. It locks the file if
// it has none, until the backing is closed.
func (b *Backing) isLockedByOthers() (bool, error) {
	if err := flock(b.FD, b.flockMode()); errors.Is(err, unix.EWOULDBLOCK) {
		return true, nil
	}
	l := unix.Flock_t{Type: unix.F_WRLCK}
	if b.ReadOnly {
		l.Type = unix.F_RDLCK
	}
	err := unix.FcntlFlock(uintptr(b.FD), unix.F_OFD_GETLK, &l)
	return err == nil && l.Type != unix.F_UNLCK, err
}

// flock locks or unlocks an open file without waiting.
func flock(fd, how int) error {
	return eintr.Repeat(func() error { return unix.Flock(fd, how|unix.LOCK_NB) })
}

// Share says that the backing is only read from now on: other servers may read it too.
func (b *Backing) Share() error {
	b.ReadOnly = true
	if !b.IsDisk {
		_ = flock(b.FD, b.flockMode())
	}
	if b.Lock == nil {
		return nil
	}
	return b.Lock.Share(b.Identity)
}
