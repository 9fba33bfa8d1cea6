package stack

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/loop/internal/backing"
	"github.com/ublk-loop/ublk-loop/loop/internal/basemark"
	"github.com/ublk-loop/ublk-loop/loop/internal/cow"
	"github.com/ublk-loop/ublk-loop/transfer/snapshot"
	"github.com/ublk-loop/ublk-loop/transfer/table"
	"github.com/ublk-loop/ublk-loop/transfer/verity"
)

// markBase records in the files below a snapshot that its store needs them: in the origin, or
// in each file below it if the origin is a table. The store was opened for writing. A store
// without a label has no name to record.
func (s *Stack) markBase(t *table.Snapshot, store *cow.Store, lockDir string) error {
	label := store.Label()
	if label == nil {
		return nil
	}
	for _, b := range s.below(t.Origin) {
		err := basemark.Add(lockDir, b.File, label.UUID)
		if err != nil && !errors.Is(err, basemark.ErrUnsupported) {
			return fmt.Errorf("%s: %w", b.Path, err)
		}
	}
	return nil
}

// below returns the files and disks of a device or table name that are only read.
func (s *Stack) below(name string) (list []*backing.Backing) {
	number, ok := s.tables.Table(name)
	if !ok {
		for i, device := range s.tables.Devices() {
			if device == name && s.Backings[s.backingOf[i]].ReadOnly {
				list = append(list, s.Backings[s.backingOf[i]])
			}
		}
		return list
	}
	for _, l := range s.tables.Tables[number].Lines {
		for _, a := range l.Target.Areas(l.Length) {
			list = append(list, s.below(a.Device)...)
		}
	}
	return list
}

// hintNeeded says how to merge into a base that other stores need.
func hintNeeded(err error) error {
	if !errors.Is(err, unix.EPERM) {
		return err
	}
	return hint.Add(err, "detach the device, and use ublk-loop cow thaw; the other stores are worthless after a merge")
}

// refuseTable returns the error for a base that is a table. It names the store of a snapshot.
func (s *Stack) refuseTable(name string) error {
	if i, ok := s.tables.Table(name); ok {
		if below, ok := s.tables.Tables[i].Lines[0].Target.(*table.Snapshot); ok {
			return fmt.Errorf("merge into the store %s: %w", below.Store, errors.ErrUnsupported)
		}
	}
	return fmt.Errorf("merge into the table %s: %w", name, errors.ErrUnsupported)
}

// refuseTree refuses a base of some size that has a hash tree behind its data. The file reads through the page
// cache, because a superblock can be a part of a disk's block.
func refuseTree(base *os.File, size uint64) error {
	_, offset, err := verity.FindAppended(base, size)
	switch {
	case err == nil:
		return hint.Add(fmt.Errorf("%w: superblock at byte %d", snapshot.ErrVerity, offset), forceHint)
	case errors.Is(err, verity.ErrNoSuperblock):
		return nil
	}
	return err
}
