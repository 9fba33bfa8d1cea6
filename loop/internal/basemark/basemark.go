package basemark

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/eintr"
	"github.com/ublk-loop/ublk-loop/internal/identity"
	"github.com/ublk-loop/ublk-loop/loop/internal/filelock"
)

const attribute = "user.ublk-loop.stores"

// maxStores is the maximum number of UUIDs in a record. An attribute of ext4 has less than
// 4 KiB.
const maxStores = 200

// UUID identifies a store.
type UUID = [16]byte

// Others stands for the stores that a record has no room for. Only Clear removes it.
var Others = UUID{}

// ErrUnsupported is returned by Add if the file cannot have a record.
var ErrUnsupported = errors.ErrUnsupported

// ErrDamaged is returned for a record that this package has not written.
var ErrDamaged = fmt.Errorf("attribute %s is damaged: %w", attribute, unix.EINVAL)

// List returns the stores that need a file. It returns none for an object that cannot have
// a record.
func List(file *os.File) ([]UUID, error) {
	b := make([]byte, (maxStores+1)*len(UUID{}))
	var n int
	err := eintr.Repeat(func() (err error) {
		n, err = unix.Fgetxattr(int(file.Fd()), attribute, b)
		return err
	})
	switch {
	case isUnsupported(err), errors.Is(err, unix.ENODATA):
		return nil, nil
	case errors.Is(err, unix.ERANGE):
		return nil, ErrDamaged
	case err != nil:
		return nil, fmt.Errorf("read attribute %s: %w", attribute, err)
	case n%len(UUID{}) != 0:
		return nil, ErrDamaged
	}
	var list []UUID
	for b = b[:n]; len(b) > 0; b = b[len(UUID{}):] {
		list = append(list, UUID(b))
	}
	return list, nil
}

// Has reports whether a file has the record of a store, or more than a record can list. It returns
// an error that wraps ErrUnsupported for an object that cannot have a record.
func Has(file *os.File, store UUID) (bool, error) {
	err := eintr.Repeat(func() error {
		_, err := unix.Fgetxattr(int(file.Fd()), attribute, nil)
		return err
	})
	if isUnsupported(err) {
		return false, fmt.Errorf("read attribute %s: %w: %w", attribute, err, ErrUnsupported)
	}
	list, err := List(file)
	return slices.Contains(list, store) || slices.Contains(list, Others), err
}

// isUnsupported reports whether the object cannot have the attribute. The kernel returns
// EPERM or ENODATA for a disk.
func isUnsupported(err error) bool {
	return errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EPERM)
}

// Add records that a store needs a file. The directory is that of package filelock, which
// makes changes one after the other. The error wraps ErrUnsupported if the file cannot
// have a record, or is on a file system that is read-only.
func Add(lockDir string, file *os.File, store UUID) error {
	return change(lockDir, file, func(list []UUID) []UUID {
		switch {
		case slices.Contains(list, store), slices.Contains(list, Others) && len(list) > maxStores:
			return list
		case len(list) >= maxStores:
			return append(list, Others)
		}
		return append(list, store)
	})
}

// Remove records that a store does not need a file any longer.
func Remove(lockDir string, file *os.File, store UUID) error {
	return change(lockDir, file, func(list []UUID) []UUID {
		return slices.DeleteFunc(list, func(u UUID) bool { return u == store && u != Others })
	})
}

// Clear removes the record.
func Clear(lockDir string, file *os.File) error {
	return changing(lockDir, file, func() error { return write(file, nil) })
}

func change(lockDir string, file *os.File, edit func([]UUID) []UUID) error {
	return changing(lockDir, file, func() error {
		list, err := List(file)
		if err != nil {
			return err
		}
		was := len(list)
		if list = edit(list); len(list) == was {
			return nil
		}
		return write(file, list)
	})
}

// changing calls do while no other process changes the record of the file.
func changing(lockDir string, file *os.File, do func() error) error {
	object, err := identity.Of(file)
	if err != nil {
		return err
	}
	return filelock.Changing(lockDir, object, do)
}

func write(file *os.File, list []UUID) error {
	err := eintr.Repeat(func() error {
		if len(list) == 0 {
			return unix.Fremovexattr(int(file.Fd()), attribute)
		}
		var b []byte
		for _, u := range list {
			b = append(b, u[:]...)
		}
		return unix.Fsetxattr(int(file.Fd()), attribute, b, 0)
	})
	switch {
	case len(list) == 0 && errors.Is(err, unix.ENODATA), len(list) == 0 && isUnsupported(err):
		return nil
	case isUnsupported(err), errors.Is(err, unix.EROFS):
		return fmt.Errorf("write attribute %s: %w: %w", attribute, err, ErrUnsupported)
	case err != nil:
		return fmt.Errorf("write attribute %s: %w", attribute, err)
	}
	return durable(file)
}

// durable makes the attribute outlive a power cut.
func durable(file *os.File) error {
	return eintr.Repeat(func() error { return unix.Fsync(int(file.Fd())) })
}
