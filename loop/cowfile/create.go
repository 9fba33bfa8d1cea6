package cowfile

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/internal/identity"
	"github.com/ublk-loop/ublk-loop/internal/newfile"
	"github.com/ublk-loop/ublk-loop/loop/internal/backing"
	"github.com/ublk-loop/ublk-loop/loop/internal/basemark"
	"github.com/ublk-loop/ublk-loop/loop/internal/filelock"
	"github.com/ublk-loop/ublk-loop/transfer/snapshot"
)

// DefaultChunkSize is the size of a chunk in bytes, if the caller has no other.
const DefaultChunkSize = 64 << 10

// CreateOptions say which store to make.
type CreateOptions struct {
	Path      string
	Origin    string // the file or disk that the store has changes of
	ChunkSize uint32 // in bytes; 0 for DefaultChunkSize
	// Size is the size of a new file in bytes; 0 for a size that is enough for every chunk of
	// the origin. The file occupies only what is written to it.
	Size uint64
}

// Create makes a store, in a new file, in a file of size 0, or on an empty disk, and records in the
// origin that the store needs it. After an error no new file is left.
func Create(o CreateOptions) error {
	_, err := makeStore(o)
	return err
}

// makeStore is Create. The result can remove the store.
func makeStore(o CreateOptions) (*Made, error) {
	if o.ChunkSize == 0 {
		o.ChunkSize = DefaultChunkSize
	}
	layout, err := snapshot.NewLayout(o.ChunkSize)
	if err != nil {
		return nil, fmt.Errorf("chunk size: %w", err)
	}
	origin, err := openLocked(o.Origin, &backing.Options{ReadOnly: true})
	if err != nil {
		return nil, err
	}
	defer func() { _ = origin.Close() }()
	if err := refuseStore(origin); err != nil {
		return nil, err
	}
	label := &snapshot.Label{UUID: snapshot.NewUUID(), OriginSize: origin.Size, OriginPath: origin.Path}
	c := creating{layout: layout, origin: origin, label: label, size: o.Size}
	made := &Made{path: o.Path, origin: o.Origin, store: label.UUID}
	if info, statErr := os.Stat(o.Path); statErr == nil && info.Mode()&(os.ModeDevice|os.ModeCharDevice) == os.ModeDevice {
		err = c.onDisk(o.Path)
	} else {
		made.isNew, err = c.inFile(o.Path)
	}
	return made, err
}

// refuseStore refuses a store as an origin, because the store alone is not a disk.
func refuseStore(origin *backing.Backing) error {
	isStore, err := snapshot.IsStore(origin.File)
	if err != nil {
		return fmt.Errorf("%s: %w", origin.Path, err)
	}
	if !isStore {
		return nil
	}
	err = fmt.Errorf("%s is a store itself: %w", origin.Path, unix.EINVAL)
	return hint.Add(err, "ublk-loop fork makes a store over the device of a store")
}

// creating is the state of Create.
type creating struct {
	layout snapshot.Layout
	origin *backing.Backing
	label  *snapshot.Label
	size   uint64
}

// onDisk makes a store on a disk.
func (c *creating) onDisk(path string) error {
	disk, err := openLocked(path, &backing.Options{})
	if err != nil {
		return err
	}
	defer func() { _ = disk.Close() }()
	if err := snapshot.CheckEmpty(disk.File, disk.Size, c.layout); err != nil {
		err = fmt.Errorf("%s: %w", disk.Path, err)
		return hint.Add(err, "zero the beginning of the disk, for example with blkdiscard --zeroout")
	}
	return c.format(disk.File)
}

// inFile makes a store in a new file, or in an empty one. After an error a new file is gone, and the
// other one is empty.
func (c *creating) inFile(path string) (isNew bool, err error) {
	file, isNew, err := openEmpty(path)
	if err != nil {
		return false, err
	}
	err = c.fill(file)
	switch {
	case err == nil:
		err = newfile.SyncDirectory(path)
	case isNew:
		err = errors.Join(err, os.Remove(path))
	}
	return isNew, errors.Join(err, file.Close())
}

// fill locks an empty file, gives it its size, and makes the store in it.
func (c *creating) fill(file *os.File) error {
	object, err := identity.OfDescriptor(int(file.Fd()))
	if err != nil {
		return err
	}
	lock, err := filelock.Acquire(lockDir, object, filelock.Range{}, filelock.Exclusive)
	if err != nil {
		return fmt.Errorf("%s: %w", file.Name(), err)
	}
	defer func() { _ = lock.Release() }()
	if err := checkEmpty(file); err != nil { // another process may have made a store
		return err
	}
	if c.size == 0 {
		chunks, err := c.layout.OriginChunks(c.origin.Size)
		if err != nil {
			return err
		}
		c.size = c.layout.StoreSize(chunks)
	}
	if least := c.layout.StoreSize(1); c.layout.StoreChunks(c.size) < c.layout.StoreChunks(least) {
		return hint.Add(fmt.Errorf("%d bytes: %w", c.size, snapshot.ErrTooSmall), "the smallest size with these chunks is %d", least)
	}
	if err := file.Truncate(int64(c.size)); err != nil {
		return err
	}
	if err := c.format(file); err != nil {
		return errors.Join(err, file.Truncate(0))
	}
	return nil
}

// format records the store in the origin, and makes it. A crash between the two leaves a
// record of a store that does not exist.
func (c *creating) format(file *os.File) error {
	err := basemark.Add(lockDir, c.origin.File, c.label.UUID)
	if errors.Is(err, basemark.ErrUnsupported) {
		err = nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w", c.origin.Path, err)
	}
	if err := snapshot.FormatLabelled(file, c.layout, c.label); err != nil {
		return errors.Join(err, basemark.Remove(lockDir, c.origin.File, c.label.UUID))
	}
	return nil
}
