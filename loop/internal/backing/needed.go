package backing

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/loop/internal/basemark"
)

// checkNotNeeded refuses to write to a file whose contents stores need. The lock that the
// backing has keeps others from recording a store later.
func (b *Backing) checkNotNeeded(o *Options) error {
	if b.ReadOnly || o.Thaw {
		return nil
	}
	err := b.CheckStores(o.Store)
	if errors.Is(err, unix.EPERM) {
		err = hint.Add(err, "attach it with {read_only}; cow thaw allows writes to it, after which these stores are worthless")
	}
	return err
}

// CheckStores returns an error that wraps EPERM if other stores than one need the file. nil
// stands for none.
func (b *Backing) CheckStores(only *basemark.UUID) error {
	if b.IsDisk {
		return nil
	}
	stores, err := basemark.List(b.File)
	if err != nil {
		return err
	}
	needed := 0
	for _, s := range stores {
		if only == nil || s != *only {
			needed++
		}
	}
	if needed == 0 {
		return nil
	}
	return fmt.Errorf("%s: %w", neededBy(stores), unix.EPERM)
}

// neededBy describes the stores that need a file.
func neededBy(stores []basemark.UUID) string {
	switch {
	case stores[len(stores)-1] == basemark.Others:
		return fmt.Sprintf("base of more than %d stores", len(stores)-1)
	case len(stores) == 1:
		return "base of a store"
	}
	return fmt.Sprintf("base of %d stores", len(stores))
}
