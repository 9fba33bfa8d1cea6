package verityfile

import (
	"encoding/hex"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/transfer/table"
	"github.com/ublk-loop/ublk-loop/transfer/verity"
)

// A Device says how an image with a tree is served.
type Device struct {
	// Table is a device-mapper table with the target verity, or a stack of tables whose last one
	// that is.
	Table string
	// Files are the files of the table, in its order.
	Files []*os.File
	// Bytes is the size of the device.
	Bytes uint64

	below string // tables that line uses, in the concise format; mostly none
	line  string // with the target verity
}

// Concise returns the tables in the concise format. The last one, with the target verity, has a
// name.
func (d *Device) Concise(name string) string {
	text := name + ",,,ro," + table.Escape(d.line)
	if d.below != "" {
		text = d.below + ";" + text
	}
	return text
}

// Open opens the tree of an image that where.Opener has opened, and returns how to serve both. It
// reads the superblock, and checks the end of the tree against the root hash (verity.Tree.CheckEnd).
// where.Image is not used. The caller owns the files, and image also after an error.
func Open(image *os.File, where *Location) (*Device, error) {
	s, err := reopen(image)
	if err != nil {
		return nil, err
	}
	defer func() { _ = s.Close() }()
	here := *where
	f := finder{image: image, store: s, where: &here}
	defer f.close()
	if err := f.find(); err != nil {
		return nil, err
	}
	d := &Device{Files: []*os.File{image}}
	if f.partitions != nil {
		if err := d.usePartitions(&f); err != nil {
			return nil, err
		}
		return d, nil
	}
	if f.hash != image {
		d.Files = append(d.Files, f.hash)
	}
	if err := d.makeTable(f.hash, &here, f.root); err != nil {
		if f.hash != image {
			_ = f.hash.Close()
		}
		if f.damaged != nil {
			err = fmt.Errorf("%w, and %w", err, f.damaged)
		}
		return nil, err
	}
	return d, nil
}

// usePartitions sets the tables of an image whose data and tree are partitions.
func (d *Device) usePartitions(f *finder) error {
	tree, err := f.partitions.openTree(f.store)
	if err != nil {
		return fmt.Errorf("%s: partition %s: %w", f.store.Name(), f.partitions.tree.ID, err)
	}
	var names [2]string
	d.below, names = f.partitions.below(f.image.Name())
	d.setLine(tree, f.root, names)
	d.Table = d.Concise("verified")
	return nil
}

// setLine sets the line with the target verity, of which the table consists unless others are
// below it.
func (d *Device) setLine(tree *verity.Tree, root []byte, names [2]string) {
	p := tree.Params()
	d.line, d.Bytes = tableOf(tree, root, names), p.DataSize()
	d.Table = d.line + "\n"
}

// makeTable sets the table of the image and its tree.
func (d *Device) makeTable(hash *os.File, where *Location, root []byte) error {
	image := d.Files[0]
	data, err := reopen(image)
	if err != nil {
		return err
	}
	defer func() { _ = data.Close() }()
	area, err := reopen(hash)
	if err != nil {
		return err
	}
	defer func() { _ = area.Close() }()
	tree, err := findTree(where, data, area)
	if err != nil {
		return err
	}
	if err := tree.CheckEnd(area, root); err != nil {
		return fmt.Errorf("%s: %w", area.Name(), err)
	}
	same, err := sameFile(data.File, area.File)
	if err != nil {
		return err
	}
	names := [2]string{table.FileWord(image.Name(), "image"), table.FileWord(hash.Name(), "hash")}
	switch {
	case same:
		names[1] = names[0]
		for _, f := range d.Files[1:] {
			_ = f.Close()
		}
		d.Files = d.Files[:1]
	case names[0] == names[1]: // the file was replaced between
		names[1] = "hash"
	}
	d.setLine(tree, root, names)
	return nil
}

// tableOf returns the line of a tree with its data.
func tableOf(tree *verity.Tree, root []byte, names [2]string) string {
	p := tree.Params()
	salt := "-"
	if len(p.Salt) > 0 {
		salt = hex.EncodeToString(p.Salt)
	}
	return fmt.Sprintf("0 %d verity 1 %s %s %d %d %d %d %s %x %s", p.DataSize()/512, names[0], names[1],
		p.DataBlockSize, p.HashBlockSize, p.DataBlocks, tree.Start()/uint64(p.HashBlockSize), p.Algorithm, root, salt)
}

// reopen opens an O_PATH descriptor for reading.
func reopen(file *os.File) (*store, error) {
	fd, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", file.Fd()), unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: file.Name(), Err: err}
	}
	s := &store{File: os.NewFile(uintptr(fd), file.Name())}
	if err := s.inspect(); err != nil {
		_ = s.Close()
		return nil, err
	}
	return s, nil
}
