package verity

import "io"

// FindAppended finds the superblock of an image of size bytes that consists of
// data, the superblock, and the tree, and of nothing else. For each hash and each
// pair of block sizes it looks only where the superblock then has to be, so the
// number of places does not depend on the image. It returns ErrNoSuperblock if
// there is none.
func FindAppended(r io.ReaderAt, size uint64) (s *Superblock, offset uint64, err error) {
	for _, hash := range blockSizes() {
		for _, data := range blockSizes() {
			for _, a := range algorithms {
				s, err := findAppended(r, size, Params{Algorithm: a.name, DataBlockSize: data, HashBlockSize: hash})
				if err != nil {
					return nil, 0, err
				}
				if s != nil {
					return s, s.DataSize(), nil
				}
			}
		}
	}
	return nil, 0, ErrNoSuperblock
}

// blockSizes returns every block size, the most common first.
func blockSizes() []uint32 {
	sizes := []uint32{4096}
	for size := uint32(MinBlockSize); size <= MaxBlockSize; size *= 2 {
		if size != sizes[0] {
			sizes = append(sizes, size)
		}
	}
	return sizes
}

// findAppended looks for a superblock with these parameters, and any salt and
// number of data blocks. At most MaxBlockSize/MinBlockSize numbers lead to the same
// size of the image, because the tree begins at a whole hash block. It returns nil
// if there is none.
func findAppended(r io.ReaderAt, size uint64, p Params) (*Superblock, error) {
	least, end := uint64(1), size/uint64(p.DataBlockSize)
	for least < end { // find the least number for which the image is large enough
		p.DataBlocks = least + (end-least)/2
		if appendedSize(p) < size {
			least = p.DataBlocks + 1
		} else {
			end = p.DataBlocks
		}
	}
	b := make([]byte, SuperblockSize)
	for p.DataBlocks = least; appendedSize(p) == size; p.DataBlocks++ {
		if err := readFull(r, b, p.DataSize()); err != nil {
			return nil, err
		}
		s, err := ParseSuperblock(b)
		isIt := err == nil && s.Algorithm == p.Algorithm && s.DataBlocks == p.DataBlocks &&
			s.DataBlockSize == p.DataBlockSize && s.HashBlockSize == p.HashBlockSize
		if isIt {
			return s, nil
		}
	}
	return nil, nil
}

// appendedSize returns the size of an image with its superblock and tree, or 0
// if there is no such image.
func appendedSize(p Params) uint64 {
	if _, err := p.check(); err != nil {
		return 0
	}
	t, err := NewTree(p, TreeOffset(p.DataSize(), p.HashBlockSize))
	if err != nil {
		return 0
	}
	return t.End()
}
