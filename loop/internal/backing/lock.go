package backing

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/hint"
)

// lock keeps other writers away from a file. A file that is written to is locked
// exclusively, and a file that is only read is locked against writers. The lock
// (flock(2)) belongs to the open file description and ends with it, however the process
// ends. A disk is claimed at its open instead, see reopen.
func (b *Backing) lock(o *Options) error {
	if b.IsDisk || o.Shared {
		return nil
	}
	how, holder := unix.LOCK_EX, "another reader or writer"
	if b.ReadOnly {
		how, holder = unix.LOCK_SH, "a writer"
	}
	err := flock(b.FD, how|unix.LOCK_NB)
	switch {
	case errors.Is(err, unix.EWOULDBLOCK):
		return hint.Add(fmt.Errorf("already in use by %s: %w", holder, unix.EBUSY), "insist with {shared}")
	case err != nil:
		return hint.Add(fmt.Errorf("lock: %w", err), "do without the lock with {shared}")
	}
	return nil
}

// Unlock releases the lock of a backing without running operations. Closing the backing
// does not release the lock at once: up to Linux 6.12 a ring keeps the files of its table
// until all operations that were running then have ended, including those on other files.
func (b *Backing) Unlock() {
	if !b.IsDisk {
		_ = flock(b.FD, unix.LOCK_UN)
	}
}

func flock(fd, how int) error {
	for {
		if err := unix.Flock(fd, how); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
