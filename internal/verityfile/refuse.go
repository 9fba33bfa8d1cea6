package verityfile

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/gpt"
	"github.com/ublk-loop/ublk-loop/transfer/verity"
)

// FindTree returns what shows that an open image has a hash tree: a superblock behind its data, a
// partition, or what is beside it. It returns an empty text if nothing does. A tree in a file with
// any name is not found.
func FindTree(image *os.File, open Opener) (what string, err error) {
	s := &store{File: image}
	if err := s.inspect(); err != nil {
		return "", err
	}
	_, offset, err := verity.FindAppended(s, s.size)
	if err == nil {
		return fmt.Sprintf("a superblock at byte %d", offset), nil
	}
	if !errors.Is(err, verity.ErrNoSuperblock) {
		return "", err
	}
	partitions, err := gpt.Read(s, s.size)
	if err != nil && !errors.Is(err, gpt.ErrNoTable) && !errors.Is(err, gpt.ErrInvalid) { // a damaged table leads to no tree
		return "", fmt.Errorf("partition table of %s: %w", image.Name(), err)
	}
	for i := range partitions {
		if isTree(&partitions[i]) {
			return fmt.Sprintf("partition %s", partitions[i].ID), nil
		}
	}
	near, err := around(image, open)
	if near == nil || err != nil {
		return "", err
	}
	defer near.close()
	return near.findTree()
}

// isTree reports whether a partition is for a tree, of any architecture.
func isTree(p *gpt.Partition) bool {
	for _, list := range designators {
		if slices.ContainsFunc(list, func(d designator) bool { return d.tree == p.Type.String() }) {
			return true
		}
	}
	return false
}

// findTree returns what is beside an image that has a tree.
func (n *neighbourhood) findTree() (string, error) {
	_, err := unix.Getxattr(fmt.Sprintf("/proc/self/fd/%d", n.image.Fd()), rootAttribute, nil)
	switch {
	case err == nil:
		return "attribute " + rootAttribute, nil
	case !errors.Is(err, unix.ENODATA) && !errors.Is(err, unix.EOPNOTSUPP):
		return "", fmt.Errorf("read %s: %w", rootAttribute, err)
	}
	for _, suffix := range []string{rootSuffix, treeSuffix, containerdSuffix} {
		file, err := n.open(suffix)
		if err != nil {
			return "", err
		}
		if file != nil {
			return file.Name(), file.Close()
		}
	}
	return "", nil
}
