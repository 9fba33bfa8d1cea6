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
		return header, hint.Add(fmt.Errorf("frozen, because other stores need it: %w", unix.EPERM),
			"ublk-loop cow thaw allows writes to it, after which the stores that need it are worthless")
	}
	s.label = label
	return header, nil
}

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
	block := make([]byte, snapshot.HeaderBlock)
	if _, err := file.ReadAt(block, 0); err != nil {
		return fmt.Errorf("header of the snapshot store: %w", err)
	}
	if _, err := snapshot.ParseHeader(block); err != nil {
		return err
	}
	label, err := snapshot.ParseLabel(block)
	if err != nil {
		return err
	}
	if label == nil {
		label = &snapshot.Label{UUID: own}
	}
	label.Frozen = true
	if err := label.Put(block); err != nil {
		return err
	}
	if _, err := file.WriteAt(block, 0); err != nil {
		return fmt.Errorf("freeze the store: %w", err)
	}
	return file.Sync()
}
