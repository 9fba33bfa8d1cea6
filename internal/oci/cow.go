package oci

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/oci/below"
	"github.com/ublk-loop/ublk-loop/transfer/snapshot"
)

// cow says where the changes of a container's device go. The image stays as it is, so that any
// number of containers can share it.
type cow struct {
	kind string // "", cowTransient or cowFile
	size uint64 // of a transient store in bytes, 0 for the size of the image
	path string // of the store
}

const (
	cowTransient = "transient"
	cowFile      = "file"
)

// These are the chunk size of a new store, and the unit of tables, in bytes.
const (
	cowChunk    = 64 << 10
	tableSector = 512
)

// parseCow parses where the changes go. ReadOnly is set before.
func (d *Disk) parseCow(value string) error {
	if value == "none" {
		return nil
	}
	kind, rest, hasRest := strings.Cut(value, ":")
	d.cow = cow{kind: kind}
	var err error
	switch {
	case kind == cowTransient && !hasRest:
	case kind == cowTransient:
		d.cow.size, err = parseBytes(rest)
	case kind == cowFile:
		d.cow.path, err = rest, checkPath(rest)
	default:
		err = fmt.Errorf("not one of none, transient, transient:SIZE, file:PATH: %w", unix.EINVAL)
	}
	if err == nil && d.ReadOnly {
		err = fmt.Errorf("without the option rw, there are no changes: %w", unix.EINVAL)
	}
	return err
}

// writesImage reports whether the container changes the image itself.
func (d *Disk) writesImage() bool { return !d.ReadOnly && d.cow.kind == "" }

// openStore opens a store for the changes of an image with O_PATH (open(2)). A transient one
// is a new file without a name, which ends with its device. size is the size of the device.
func (s *Settings) openStore(c cow, image *os.File, size int64) (*os.File, error) {
	if c.kind == cowFile {
		f, err := below.OpenRegular(s.AllowedStores, c.path)
		if err != nil {
			return nil, fmt.Errorf("store: %w", err)
		}
		if err := checkOrigin(f, image, size); err != nil {
			_ = f.Close()
			return nil, fmt.Errorf("store %s: %w", c.path, err)
		}
		return f, nil
	}
	return s.makeTransient(c, size)
}

// makeTransient makes a store without a name.
func (s *Settings) makeTransient(c cow, size int64) (*os.File, error) {
	if s.TransientStores == "" {
		return nil, fmt.Errorf("transient store: the settings have no transient_stores: %w", unix.EPERM)
	}
	size = (size + cowChunk - 1) / cowChunk * cowChunk
	if c.size != 0 && c.size < uint64(size) {
		size = max(int64(c.size)/cowChunk*cowChunk, cowChunk)
	}
	f, err := makeUnnamed(s.TransientStores, size)
	if err != nil {
		return nil, fmt.Errorf("make a transient store: %w", err)
	}
	return f, nil
}

// checkOrigin refuses a store whose label says that it has the changes of another image. The
// two together are no file system: writes to it would destroy the store, and its metadata
// could be the content of a file that a container has written. An image of the same size does not
// take the place of one that is gone. checkOrigin returns an error that wraps EINVAL.
func checkOrigin(store, image *os.File, size int64) error {
	label, err := labelOf(store)
	if label == nil || err != nil {
		return err
	}
	is, err := image.Stat()
	if err != nil {
		return err
	}
	there, err := os.Stat(label.OriginPath) // a hint, which may lead nowhere by now
	sectors := func(bytes uint64) uint64 { return bytes / tableSector }
	switch {
	case !label.Parent.IsZero():
		return fmt.Errorf("has changes of the store %s, not of an image: %w", label.OriginPath, unix.EINVAL)
	case sectors(label.OriginSize) != sectors(uint64(size)) && sectors(label.OriginSize) != sectors(uint64(is.Size())):
		return fmt.Errorf("has changes of an image of %d bytes, not of %s: %w", label.OriginSize, image.Name(), unix.EINVAL)
	case err != nil:
		return fmt.Errorf("has changes of %s, which is gone (if %s is this image, make a link to it there): %w", label.OriginPath, image.Name(), unix.EINVAL)
	case !os.SameFile(is, there):
		return fmt.Errorf("has changes of %s, not of %s: %w", label.OriginPath, image.Name(), unix.EINVAL)
	}
	return nil
}

// labelOf returns the label of a store, or nil for a store that has none, or that is still
// empty.
func labelOf(store *os.File) (*snapshot.Label, error) {
	f, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", store.Fd()), os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	_, label, err := snapshot.ReadLabelled(f)
	if errors.Is(err, snapshot.ErrNew) {
		err = nil
	}
	return label, err
}

// makeUnnamed makes a sparse file without a name in a directory of root.
func makeUnnamed(path string, size int64) (*os.File, error) {
	dir, err := os.OpenFile(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = dir.Close() }()
	if err := checkPrivate(dir); err != nil {
		return nil, err
	}
	fd, err := unix.Openat(int(dir.Fd()), ".", unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, &os.PathError{Op: "make a file without a name in", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	defer func() { _ = f.Close() }()
	if err := f.Truncate(size); err != nil {
		return nil, err
	}
	named, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open it again: %w", err)
	}
	return os.NewFile(uintptr(named), path+"/"+cowTransient), nil
}
