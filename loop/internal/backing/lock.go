package backing

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/hint"
)

// lock keeps other writers out of a file: one that is written to is locked for
// us alone, one that is only read against writers. The lock (flock(2)) belongs
// to the open descriptor and ends with it, however the process ends. A disk is
// claimed by its open instead, see reopen.
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

// Unlock drops the lock, of a backing on which nothing is under way. Its close is
// not enough at once: up to Linux 6.12 a ring keeps what was in its table until
// all has ended that was under way on it then, on other files too.
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
