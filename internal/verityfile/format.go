package verityfile

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/internal/newfile"
	"github.com/ublk-loop/ublk-loop/transfer/verity"
)

// FormatOptions say what Format writes, and where.
type FormatOptions struct {
	Location
	// Superblock is what Format writes. 0 data blocks stand for the whole image.
	Superblock verity.Superblock
	// Force overwrites what a file contains where superblock and tree belong, or the
	// contents of a disk.
	Force bool
	// Claim keeps devices away from an open file or disk that Format reads or also writes, or
	// says why Format may not. release ends that. If Claim is nil, devices can use the files.
	Claim func(file *os.File, readOnly bool) (release func() error, err error)
	// RootFile also gets the root hash in hexadecimal digits, unless it is empty.
	RootFile string
}

// Formatted is the result of Format.
type Formatted struct {
	Superblock verity.Superblock
	Tree       *verity.Tree
	Root       []byte
	// Appended is set if the tree is in the image.
	Appended bool
}

// Format computes the tree of an image, and writes it with its superblock. If it
// fails, a file has its old length again, and a new hash file is removed.
func Format(ctx context.Context, o FormatOptions) (*Formatted, error) {
	f := formatting{FormatOptions: o}
	err := f.open()
	if err == nil {
		err = f.claim()
	}
	if err == nil && f.RootFile != "" {
		err = f.openRootFile()
	}
	if err == nil {
		err = f.layOut()
	}
	if err == nil {
		err = f.write(ctx)
	}
	err = f.close(err)
	if err != nil {
		return nil, err
	}
	return &Formatted{f.Superblock, f.tree, f.root, f.hash == f.image}, nil
}

// formatting is the state of Format.
type formatting struct {
	FormatOptions
	image, hash *store // the same if the tree is appended
	claims      []func() error
	rootFile    *rootFile
	created     bool   // hash is a new file
	written     bool   // something has been written to hash
	offset      uint64 // of the superblock
	tree        *verity.Tree
	root        []byte
}

// open opens the files.
func (f *formatting) open() error {
	var err error
	if f.HashFile == "" {
		f.image, err = openStore(f.Image, os.O_RDWR|exclusive(f.Image))
		f.hash = f.image
		return err
	}
	if f.image, err = openStore(f.Image, os.O_RDONLY); err != nil {
		return err
	}
	f.hash, err = openStore(f.HashFile, os.O_RDWR|exclusive(f.HashFile))
	if errors.Is(err, unix.ENOENT) {
		f.hash, err = openStore(f.HashFile, os.O_RDWR|os.O_CREATE|os.O_EXCL)
		f.created = err == nil
	}
	if err != nil {
		return err
	}
	if same, err := sameFile(f.image.File, f.hash.File); err != nil || !same {
		return err
	}
	_ = f.image.Close()
	f.image = f.hash
	return nil
}

// claim claims the files. The tree would be wrong if a device wrote to the image meanwhile.
func (f *formatting) claim() error {
	if f.Claim == nil {
		return nil
	}
	stores := []*store{f.hash}
	if f.image != f.hash {
		stores = append(stores, f.image)
	}
	for _, s := range stores {
		release, err := f.Claim(s.File, s != f.hash)
		if err != nil {
			return err
		}
		f.claims = append(f.claims, release)
	}
	return nil
}

// openRootFile opens the file for the root hash, so that nothing is done if it cannot be written.
func (f *formatting) openRootFile() (err error) {
	f.rootFile, err = openRootFile(f.RootFile)
	if err != nil {
		return err
	}
	return errors.Join(f.rootFile.refuse(f.image), f.rootFile.refuse(f.hash))
}

// layOut computes where everything belongs, and checks that it fits there.
func (f *formatting) layOut() error {
	if err := f.refuseSecond(); err != nil {
		return err
	}
	if err := f.countBlocks(); err != nil {
		return err
	}
	switch {
	case f.HashOffset != nil:
		f.offset = *f.HashOffset
	case f.hash == f.image:
		f.offset = (f.image.size + verity.SuperblockSize - 1) / verity.SuperblockSize * verity.SuperblockSize
	}
	if err := checkOffset(f.offset); err != nil {
		return err
	}
	p := &f.Superblock.Params
	var err error
	if f.tree, err = verity.NewTree(*p, verity.TreeOffset(f.offset, p.HashBlockSize)); err != nil {
		return err
	}
	return f.checkSpace()
}

// refuseSecond refuses an image that already ends with a superblock and its tree,
// unless the caller says where the data ends.
func (f *formatting) refuseSecond() error {
	if f.hash != f.image || f.HashOffset != nil || f.Superblock.DataBlocks != 0 {
		return nil
	}
	s, offset, err := verity.FindAppended(f.image, f.image.size)
	switch {
	case errors.Is(err, verity.ErrNoSuperblock):
		return nil
	case err != nil:
		return err
	}
	err = fmt.Errorf("%s has a tree behind its %d data blocks of %d bytes: %w", f.Image, s.DataBlocks, s.DataBlockSize, unix.EEXIST)
	return hint.Add(err, "{force} --data-blocks=%d --hash-offset=%d replaces the tree", offset/uint64(f.Superblock.DataBlockSize), offset)
}

// countBlocks sets the number of data blocks, or checks that the image has as many.
func (f *formatting) countBlocks() error {
	p := &f.Superblock.Params
	blocks, rest := f.image.size/uint64(p.DataBlockSize), f.image.size%uint64(p.DataBlockSize)
	switch {
	case blocks == 0:
		return fmt.Errorf("%s has %d bytes, less than a block of %d: %w", f.Image, f.image.size, p.DataBlockSize, unix.EINVAL)
	case p.DataBlocks > blocks:
		return fmt.Errorf("%s has %d bytes, less than %d blocks of %d: %w", f.Image, f.image.size, p.DataBlocks, p.DataBlockSize, unix.EINVAL)
	case p.DataBlocks == 0 && rest != 0:
		err := fmt.Errorf("%s has %d bytes, not a multiple of %d: %w", f.Image, f.image.size, p.DataBlockSize, unix.EINVAL)
		return hint.Add(err, "--data-blocks=%d leaves the last %d bytes out, which nothing protects then", blocks, rest)
	case p.DataBlocks == 0:
		p.DataBlocks = blocks
	}
	return nil
}

// checkSpace refuses to overwrite data, and what something may need.
func (f *formatting) checkSpace() error {
	end := max(f.tree.End(), f.offset+verity.SuperblockSize)
	switch data := f.Superblock.DataSize(); {
	case f.hash == f.image && f.offset < data:
		return fmt.Errorf("hash offset %d is within the data of %d bytes: %w", f.offset, data, unix.EINVAL)
	case f.hash.isDisk && end > f.hash.size:
		return fmt.Errorf("%s has %d bytes, superblock and tree end at %d: %w", f.hash.Name(), f.hash.size, end, unix.ENOSPC)
	case f.Force:
	case f.hash.isDisk:
		return hint.Add(fmt.Errorf("%s is a disk: %w", f.hash.Name(), unix.EEXIST), "{force} overwrites it from byte %d to %d", f.offset, end)
	case f.offset < f.hash.size:
		return hint.Add(fmt.Errorf("%s has data at byte %d: %w", f.hash.Name(), f.offset, unix.EEXIST),
			"{force} overwrites it from byte %d to %d", f.offset, end)
	}
	return nil
}

// write writes the tree, the superblock and the root hash, and makes them durable.
func (f *formatting) write(ctx context.Context) error {
	superblock, err := f.Superblock.Bytes()
	if err != nil {
		return err
	}
	f.written = true
	if f.root, err = f.tree.Build(&interrupted{ctx: ctx, from: f.image}, f.hash); err != nil {
		return err
	}
	if _, err := f.hash.WriteAt(superblock, int64(f.offset)); err != nil {
		return err
	}
	if end := f.tree.End(); !f.hash.isDisk && end > f.hash.size && f.tree.Levels() == 0 {
		if err := f.hash.Truncate(int64(end)); err != nil { // no block of the tree is behind the superblock
			return err
		}
	}
	err = f.hash.Sync()
	if err == nil && f.created {
		err = newfile.SyncDirectory(f.HashFile)
	}
	if err == nil && f.rootFile != nil {
		err = f.rootFile.write(f.root)
	}
	return err
}

// close closes the files. After an error it first takes back what it can.
func (f *formatting) close(err error) error {
	if err != nil && f.hash != nil && !f.hash.isDisk {
		if f.written {
			err = errors.Join(err, f.hash.Truncate(int64(f.hash.size)))
		}
		if f.created {
			err = errors.Join(err, (&newfile.File{File: f.hash.File}).Remove())
		}
	}
	if f.rootFile != nil {
		err = f.rootFile.close(err)
	}
	for _, release := range f.claims {
		err = errors.Join(err, release())
	}
	if f.hash != nil && f.hash != f.image {
		err = errors.Join(err, f.hash.Close())
	}
	if f.image != nil {
		err = errors.Join(err, f.image.Close())
	}
	return err
}
