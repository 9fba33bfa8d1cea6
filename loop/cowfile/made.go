package cowfile

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/newfile"
	"github.com/ublk-loop/ublk-loop/loop/internal/backing"
	"github.com/ublk-loop/ublk-loop/loop/internal/basemark"
	"github.com/ublk-loop/ublk-loop/transfer/snapshot"
)

// Made is a store that Table has made. The zero value is none.
type Made struct {
	path, origin string
	store        snapshot.UUID
	isNew        bool // the file did not exist
}

// Path returns the path of the store, or an empty text if Table has made none.
func (m *Made) Path() string { return m.path }

// Remove undoes what Table has done, for a caller that has no use for the store: a new file is
// removed, a file that existed is empty again, a disk begins with zeros, and the origin has no record of
// the store. Remove leaves a store that a device has, that has changes, or that is another one by now.
func (m *Made) Remove() error {
	if m.path == "" {
		return nil
	}
	s, err := openStore(m.path, false)
	switch {
	case errors.Is(err, unix.EBUSY), errors.Is(err, unix.EPERM), errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return err
	}
	err = m.empty(s)
	return errors.Join(err, s.Close())
}

// empty empties the store, whose lock keeps devices away.
func (m *Made) empty(s *store) error {
	info, err := Inspect(m.path)
	if err != nil {
		return err
	}
	if s.label == nil || s.label.UUID != m.store || info.Label == nil || info.Label.UUID != m.store || info.Chunks != 0 {
		return nil
	}
	switch {
	case s.IsDisk:
		// The rest of the first chunk and the area after it are zero.
		if _, err = s.File.WriteAt(make([]byte, snapshot.MinChunkSize), 0); err == nil {
			err = s.File.Sync()
		}
	case m.isNew:
		err = (&newfile.File{File: s.File}).Remove()
	default:
		err = s.File.Truncate(0)
	}
	if err != nil {
		return err
	}
	return m.forget()
}

// forget removes the record in the origin.
func (m *Made) forget() error {
	file, err := backing.OpenPath(m.origin)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	part, err := backing.OpenPart(file, 0, 0)
	if err != nil {
		return err
	}
	return errors.Join(basemark.Remove(lockDir, part.File(), m.store), part.Close())
}
