package backing

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/loop/internal/filelock"
)

// LockForWriting makes the lock of a backing that is only read exclusive. It returns an error
// that wraps EBUSY if another device has the file. A disk that is only read has no lock.
func (b *Backing) LockForWriting() error {
	if b.Lock == nil {
		return nil
	}
	err := b.Lock.Change(filelock.Range{}, b.Identity, filelock.Exclusive)
	if errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("already in use by another reader or writer: %w", unix.EBUSY)
	}
	return err
}

// LockForReading undoes LockForWriting.
func (b *Backing) LockForReading() error {
	if b.Lock == nil {
		return nil
	}
	return b.Lock.Change(filelock.Range{}, b.Identity, filelock.Shared)
}

// ReopenForWriting opens a file or disk that is only read again. It claims a disk.
func (b *Backing) ReopenForWriting() (*os.File, error) {
	flags := unix.O_RDWR
	if b.IsDisk {
		flags |= unix.O_EXCL
	}
	fd, err := reopenQuietly(b.File, flags)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), b.Path), nil
}
