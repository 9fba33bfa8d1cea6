package cowfile

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/loop/internal/backing"
	"github.com/ublk-loop/ublk-loop/loop/internal/cow"
	"github.com/ublk-loop/ublk-loop/loop/internal/statefile"
	"github.com/ublk-loop/ublk-loop/transfer/snapshot"
)

// ErrInvalid is returned for a store whose changes are lost: it was full, or could not be
// written.
var ErrInvalid = fmt.Errorf("invalid store, its changes are lost: %w", unix.EIO)

// lockDir has the locks of files and disks. Tests change it.
var lockDir = statefile.LockDir

// A store is an open store with what its first block says.
type store struct {
	*backing.Backing
	header snapshot.Header
	label  *snapshot.Label // nil if the store has none
}

// openStore opens and locks the store at a path.
func openStore(path string, readOnly bool) (*store, error) {
	b, err := openLocked(path, &backing.Options{ReadOnly: readOnly})
	if err != nil {
		return nil, err
	}
	s := &store{Backing: b}
	if s.header, s.label, err = snapshot.ReadLabelled(b.File); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", b.Path, err), b.Close())
	}
	return s, nil
}

// openLocked opens and locks a file or disk.
func openLocked(path string, o *backing.Options) (*backing.Backing, error) {
	file, err := backing.OpenPath(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	return openObject(file, o)
}

// fileSector is the unit of the size of a file, as of the kernel's loop devices.
const fileSector = 512

// openObject opens and locks an object of backing.OpenPath. It leaves out the part of a
// sector at the end.
func openObject(file *os.File, o *backing.Options) (*backing.Backing, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil {
		return nil, fmt.Errorf("stat %s: %w", file.Name(), err)
	}
	if st.Mode&unix.S_IFMT == unix.S_IFREG {
		o.SectorSize = fileSector
	}
	o.LockDir, o.WholeSectors, o.DirectIO, o.Unchanged = lockDir, true, backing.SwitchOff, true
	b, err := backing.Open(file, o)
	if err != nil {
		return nil, rehinted(err)
	}
	return b, nil
}

// rehinted returns an error without its hint, which is about devices.
func rehinted(err error) error {
	var h *hint.Error
	if !errors.As(err, &h) {
		return err
	}
	var plain error = &plainError{err, h.Err}
	switch {
	case errors.Is(err, unix.EPERM):
		return hint.Add(plain, cow.ThawHint)
	case errors.Is(err, unix.EBUSY):
		return hint.Add(plain, "ublk-loop list FILE shows the device that has it; ublk-loop merge merges the store of a device")
	}
	return plain
}

// plainError has the text of an error and unwraps to the cause of its hint.
type plainError struct{ text, err error }

func (e *plainError) Error() string { return e.text.Error() }

func (e *plainError) Unwrap() error { return e.err }
