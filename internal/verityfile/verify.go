package verityfile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/transfer/verity"
)

// Verify checks a whole image and its tree. It calls bad for each wrong block
// (verity.Tree.Verify). An error means that the check could not be done.
func Verify(ctx context.Context, where Location, root []byte, bad func(verity.Bad) bool) (err error) {
	image, hash, err := openBoth(where)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, image.Close(), hash.Close()) }()
	tree, err := findTree(&where, image, hash)
	if err != nil {
		return err
	}
	return tree.Verify(&interrupted{ctx: ctx, from: image}, hash, root, bad)
}

// findTree returns the tree that a superblock describes, and checks that data and tree lie
// within their files.
func findTree(where *Location, image, hash *store) (*verity.Tree, error) {
	same, err := sameFile(image.File, hash.File)
	if err != nil {
		return nil, err
	}
	s, offset, err := findSuperblock(where, hash, same)
	if err != nil {
		return nil, err
	}
	tree, err := verity.NewTree(s.Params, verity.TreeOffset(offset, s.HashBlockSize))
	if err != nil {
		return nil, err
	}
	switch data := s.DataSize(); {
	case data > image.size:
		return nil, fmt.Errorf("%s has %d bytes, less than its data of %d: %w", image.Name(), image.size, data, unix.EINVAL)
	case same && data > offset:
		return nil, fmt.Errorf("%s: the superblock at byte %d is within the data of %d bytes: %w", image.Name(), offset, data, unix.EINVAL)
	case tree.HashBlocks() > 0 && tree.End() > hash.size:
		return nil, fmt.Errorf("%s has %d bytes, but the tree ends at %d: %w", hash.Name(), hash.size, tree.End(), unix.EINVAL)
	}
	return tree, nil
}

// openBoth opens the image and the hash file, which may be the same.
func openBoth(where Location) (image, hash *store, err error) {
	image, err = openStore(where.Image, os.O_RDONLY)
	if err != nil {
		return nil, nil, err
	}
	name := where.HashFile
	if name == "" {
		name = where.Image
	}
	hash, err = openStore(name, os.O_RDONLY)
	if err != nil {
		_ = image.Close()
		return nil, nil, err
	}
	return image, hash, nil
}

// findSuperblock returns the superblock and its offset.
func findSuperblock(where *Location, hash *store, appended bool) (*verity.Superblock, uint64, error) {
	if where.HashOffset == nil && appended {
		s, offset, err := verity.FindAppended(hash, hash.size)
		if err != nil {
			return nil, 0, hint.Add(fmt.Errorf("%s: behind its data: %w", hash.Name(), err), "give its offset with --hash-offset, or its file with --hash-file")
		}
		return s, offset, nil
	}
	offset := uint64(0)
	if where.HashOffset != nil {
		offset = *where.HashOffset
	}
	if err := checkOffset(offset); err != nil {
		return nil, 0, err
	}
	b := make([]byte, verity.SuperblockSize)
	n, err := hash.ReadAt(b, int64(offset))
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, 0, err
	}
	s, err := verity.ParseSuperblock(b[:n])
	if err != nil {
		return nil, 0, fmt.Errorf("%s at byte %d: %w", hash.Name(), offset, err)
	}
	return s, offset, nil
}
