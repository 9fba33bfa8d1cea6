package cow

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/loop/internal/basemark"
	"github.com/ublk-loop/ublk-loop/transfer/snapshot"
)

// Label returns the label of the store, or nil if it has none.
func (s *Store) Label() *snapshot.Label { return s.label }

// readHeader reads header and label. A store that other stores need is only read.
func (s *Store) readHeader(readOnly bool) (snapshot.Header, error) {
	header, label, err := snapshot.ReadLabelled(s.file)
	switch {
	case err != nil:
		return header, err
	case label != nil && label.Frozen && !readOnly:
		return header, FrozenError()
	}
	s.label = label
	return header, nil
}

// FrozenError returns the error for a write to a store that other stores need. It wraps EPERM.
func FrozenError() error {
	return hint.Add(fmt.Errorf("frozen, because other stores need it: %w", unix.EPERM), ThawHint)
}

// ThawHint says how a file can be written that stores need.
const ThawHint = "ublk-loop cow thaw allows writes to it, after which the stores that need it are worthless"

// Freeze says in a store, and in the attribute of its file, that another store needs it. From
// then on it is only read, also after a reboot. A store without a label gets one, with the UUID
// that the other store has for it. by is the label of that, or nil.
func Freeze(lockDir string, file *os.File, by *snapshot.Label) error {
	above, own := snapshot.UUID{}, snapshot.NewUUID()
	if by != nil {
		above = by.UUID
	}
	if by != nil && !by.Parent.IsZero() {
		own = by.Parent
	}
	err := basemark.Add(lockDir, file, above)
	if err != nil && !errors.Is(err, basemark.ErrUnsupported) {
		return err
	}
	err = UpdateLabel(file, func(label *snapshot.Label) *snapshot.Label {
		if label == nil {
			label = &snapshot.Label{UUID: own}
		}
		label.Frozen = true
		return label
	})
	if err != nil {
		return fmt.Errorf("freeze the store: %w", err)
	}
	return nil
}

// UpdateLabel replaces the label of a store, and flushes the file. update gets the label, or nil if
// the store has none. If it returns nil, the store stays as it is. The error wraps
// snapshot.ErrLabel if the label is damaged.
func UpdateLabel(file *os.File, update func(*snapshot.Label) *snapshot.Label) error {
	return rewriteHeader(file, func(block []byte) (isNew bool, err error) {
		label, err := snapshot.ParseLabel(block)
		if err != nil {
			return false, err
		}
		if label = update(label); label == nil {
			return false, nil
		}
		return true, label.Put(block)
	})
}

// RemoveLabel removes the label of a store, also a damaged one, and flushes the file.
func RemoveLabel(file *os.File) error {
	return rewriteHeader(file, func(block []byte) (isNew bool, err error) {
		snapshot.ClearLabel(block)
		return true, nil
	})
}

// rewriteHeader lets a function change the first block of a store, and writes it if the function
// says that it is new.
func rewriteHeader(file *os.File, change func(block []byte) (isNew bool, err error)) error {
	block := make([]byte, snapshot.HeaderBlock)
	if _, err := file.ReadAt(block, 0); err != nil {
		return fmt.Errorf("read the header: %w", err)
	}
	if _, err := snapshot.ParseHeader(block); err != nil {
		return err
	}
	if isNew, err := change(block); !isNew || err != nil {
		return err
	}
	if _, err := file.WriteAt(block, 0); err != nil {
		return fmt.Errorf("write the header: %w", err)
	}
	return file.Sync()
}
