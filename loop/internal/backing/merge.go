package backing

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/eintr"
	"github.com/ublk-loop/ublk-loop/loop/internal/filelock"
)

// LockForWriting makes the lock of a backing that is only read exclusive. It returns an error
// that wraps EBUSY if another device has the file. A backing that was opened with Options.Shared has no lock.
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

// SyncForOthers writes the data of a file to the medium without a flush of the device. It opens the file again:
// if the data is lost, the next flush of the device must fail too.
func (b *Backing) SyncForOthers() error {
	fd, err := reopenQuietly(b.File, unix.O_RDONLY)
	if err != nil {
		return err
	}
	err = eintr.Repeat(func() error { return unix.Fdatasync(fd) })
	if err != nil {
		err = fmt.Errorf("write %s to the medium: %w", b.Path, err)
	}
	return errors.Join(err, unix.Close(fd))
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
