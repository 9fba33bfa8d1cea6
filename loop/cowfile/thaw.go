package cowfile

import (
	"errors"
	"fmt"
	"os"

	"github.com/ublk-loop/ublk-loop/loop/internal/backing"
	"github.com/ublk-loop/ublk-loop/loop/internal/basemark"
	"github.com/ublk-loop/ublk-loop/loop/internal/cow"
	"github.com/ublk-loop/ublk-loop/transfer/snapshot"
)

// Thaw removes the records that stores need a file, so that it can be written to again. The
// file is an image or a store. It returns the stores that it has removed; the zero UUID
// stands for others. If something is written to the file, these stores are worthless.
func Thaw(path string) (removed []snapshot.UUID, err error) {
	// A reader's lock is enough to write an attribute, but a device that has the file as its
	// origin needs it.
	b, err := openThawing(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	marks, err := basemark.List(b.File)
	if err != nil && !errors.Is(err, basemark.ErrDamaged) {
		return nil, err
	}
	for _, u := range marks {
		removed = append(removed, u)
	}
	if err := unfreeze(b.File); err != nil {
		return nil, fmt.Errorf("%s: %w", b.Path, err)
	}
	return removed, basemark.Clear(lockDir, b.File)
}

// openThawing opens a file for writing, whatever stores need it.
func openThawing(path string) (*backing.Backing, error) {
	return openLocked(path, &backing.Options{Thaw: true})
}

// unfreeze removes the mark in a store, or a damaged label. It does nothing for an image.
func unfreeze(file *os.File) error {
	if isStore, err := snapshot.IsStore(file); !isStore || err != nil {
		return err
	}
	err := cow.UpdateLabel(file, func(label *snapshot.Label) *snapshot.Label {
		if label == nil || !label.Frozen {
			return nil
		}
		label.Frozen = false
		return label
	})
	if errors.Is(err, snapshot.ErrLabel) {
		return cow.RemoveLabel(file)
	}
	return err
}
