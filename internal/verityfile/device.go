package verityfile

import (
	"encoding/hex"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/transfer/verity"
)

// A Device says how an image with a tree is served.
type Device struct {
	// Table is a device-mapper table with the target verity.
	Table string
	// Files are the files of the table, in its order.
	Files []*os.File
	// Bytes is the size of the device.
	Bytes uint64
}

// Open opens the tree of an image that where.Opener has opened, and returns how to serve both. It
// reads the superblock, and checks the end of the tree against the root hash (verity.Tree.CheckEnd).
// where.Image is not used. The caller owns the files, and image also after an error.
func Open(image *os.File, where *Location) (*Device, error) {
	here := *where
	root, hash, err := find(image, &here)
	if err != nil {
		return nil, err
	}
	d := &Device{Files: []*os.File{image}}
	if hash != image {
		d.Files = append(d.Files, hash)
	}
	if err := d.makeTable(hash, &here, root); err != nil {
		if hash != image {
			_ = hash.Close()
		}
		return nil, err
	}
	return d, nil
}

// find returns the root hash, whose signature is valid if one is asked for, and the open file
// with the tree, which can be the image.
func find(image *os.File, where *Location) (root []byte, hash *os.File, err error) {
	var near *neighbourhood
	if where.RootHash == auto || where.Signature == auto {
		if near, err = around(image, where.Opener); err != nil {
			return nil, nil, err
		}
		if near == nil {
			return nil, nil, hint.Add(errNothingBeside, "a disk has nothing beside it: give the root hash with --root-hash")
		}
		defer near.close()
	}
	if where.RootHash == auto {
		root, err = near.findRoot(where)
	} else {
		root, err = ReadRoot(where.RootHash)
	}
	if err == nil && where.Signature != "" {
		err = where.checkSignature(near, root)
	}
	if err != nil {
		return nil, nil, err
	}
	switch {
	case where.HashFile != "":
		hash, err = where.Opener(where.HashFile, 0)
	case where.RootHash == auto && where.HashOffset == nil:
		hash, err = near.open(treeSuffix)
	}
	if hash == nil && err == nil {
		hash = image
	}
	return root, hash, err
}

// checkSignature checks the signature of the root hash against the certificates of the host.
func (l *Location) checkSignature(near *neighbourhood, root []byte) error {
	var signature []byte
	var err error
	if l.Signature == auto {
		signature, err = near.read(signatureSuffix, maxSignature)
		if signature == nil && err == nil {
			err = fmt.Errorf("no signature of the root hash beside it: %w", unix.ENODATA)
		}
	} else {
		var file *os.File
		if file, err = l.Opener(l.Signature, 0); err == nil {
			signature, err = readOpen(file, maxSignature)
		}
	}
	if err != nil {
		return err
	}
	certificates, err := hostCertificates(certificateDirs)
	if err != nil {
		return err
	}
	return checkSignature(root, signature, certificates)
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
	same, err := sameFile(data, area)
	if err != nil {
		return err
	}
	names := [2]string{tableName(image.Name(), "image"), tableName(hash.Name(), "hash")}
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
	p := tree.Params()
	d.Table, d.Bytes = tableOf(tree, root, names), p.DataSize()
	return nil
}

// tableOf returns the table of a tree with its data.
func tableOf(tree *verity.Tree, root []byte, names [2]string) string {
	p := tree.Params()
	salt := "-"
	if len(p.Salt) > 0 {
		salt = hex.EncodeToString(p.Salt)
	}
	return fmt.Sprintf("0 %d verity 1 %s %s %d %d %d %d %s %x %s\n", p.DataSize()/512, names[0], names[1],
		p.DataBlockSize, p.HashBlockSize, p.DataBlocks, tree.Start()/uint64(p.HashBlockSize), p.Algorithm, root, salt)
}

// tableName returns a path as a word of a table, or another name if a table cannot have the
// path. The name of an open file does not matter.
func tableName(path, other string) string {
	if strings.ContainsFunc(path, func(r rune) bool { return r <= ' ' || r == '#' || r >= 0x7f }) {
		return other
	}
	return path
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
