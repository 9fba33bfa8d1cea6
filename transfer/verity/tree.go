package verity

import (
	"bytes"
	"fmt"
	"math"
	"math/bits"
)

// A Tree is the geometry of a hash tree: where the digest of each block is. It
// has no digests.
type Tree struct {
	params    Params
	algorithm algorithm
	// start is the offset of the tree in bytes. A hash block's number counts from
	// there.
	start uint64
	// shift is the binary logarithm of the number of slots in a hash block.
	shift uint
	// slot is the size of a slot in bytes.
	slot int
	// levels has level 0, whose digests are of the data, first.
	levels []level
	blocks uint64 // of all levels
}

// A level is a range of hash blocks.
type level struct{ first, count uint64 }

// TreeOffset returns the offset of the tree behind a superblock at an offset,
// both in bytes.
func TreeOffset(superblock uint64, hashBlockSize uint32) uint64 {
	size := uint64(hashBlockSize)
	return (superblock + SuperblockSize + size - 1) / size * size
}

// NewTree returns the tree of the parameters that begins at start, in bytes: a
// multiple of the size of a hash block. The error wraps ErrInvalid,
// ErrUnsupported or ErrTooLarge.
func NewTree(p Params, start uint64) (*Tree, error) {
	a, err := p.check()
	if err != nil {
		return nil, err
	}
	size := uint64(p.HashBlockSize)
	if start%size != 0 {
		return nil, fmt.Errorf("tree at byte %d, not a multiple of %d: %w", start, size, ErrInvalid)
	}
	p.Salt = bytes.Clone(p.Salt)
	shift := uint(bits.Len64(size/uint64(a.size))) - 1
	t := &Tree{params: p, algorithm: a, start: start, shift: shift, slot: int(size >> shift)}
	for n := p.DataBlocks; n > 1; {
		n = (n-1)>>shift + 1
		t.levels = append(t.levels, level{count: n})
		t.blocks += n
	}
	first := t.blocks
	for i := range t.levels {
		first -= t.levels[i].count
		t.levels[i].first = first
	}
	if t.blocks > (math.MaxInt64-min(start, math.MaxInt64))/size {
		return nil, fmt.Errorf("tree of %d blocks at byte %d: %w", t.blocks, start, ErrTooLarge)
	}
	return t, nil
}

// Params returns the parameters. The caller must not change the salt.
func (t *Tree) Params() Params { return t.params }

// Start returns the offset of the tree in bytes.
func (t *Tree) Start() uint64 { return t.start }

// Levels returns the number of levels, 0 for data of one block.
func (t *Tree) Levels() int { return len(t.levels) }

// HashBlocks returns the number of hash blocks.
func (t *Tree) HashBlocks() uint64 { return t.blocks }

// End returns the offset of the end of the tree in bytes.
func (t *Tree) End() uint64 { return t.start + t.blocks*uint64(t.params.HashBlockSize) }

// DigestSize returns the length of a digest, and of the root hash, in bytes.
func (t *Tree) DigestSize() int { return t.algorithm.size }

// ZeroDigest returns the digest of a data block of zeroes.
func (t *Tree) ZeroDigest() []byte {
	h := t.newHasher()
	return bytes.Clone(h.digest(make([]byte, t.params.DataBlockSize)))
}

// A HashBlock is a block of the tree.
type HashBlock struct {
	// Number counts the blocks of the tree in the order in which they are stored.
	// Block 0 is the topmost.
	Number uint64
	// Level is 0 if the digests are of the data.
	Level int
	// Offset is in bytes, from the same place as the start of the tree.
	Offset uint64
}

// above returns the hash block of a level that is above a data block.
func (t *Tree) above(block uint64, level int) HashBlock {
	n := t.levels[level].first + block>>(t.shift*uint(level+1))
	return HashBlock{Number: n, Level: level, Offset: t.start + n*uint64(t.params.HashBlockSize)}
}

// Lowest returns the hash block with the digest of a data block. The tree must have a level.
func (t *Tree) Lowest(block uint64) HashBlock { return t.above(block, 0) }

// digestIn returns the digest in a hash block of a level that leads to a data
// block.
func (t *Tree) digestIn(hashBlock []byte, block uint64, level int) []byte {
	slot := int(block >> (t.shift * uint(level)) & (1<<t.shift - 1))
	return hashBlock[slot*t.slot:][:t.algorithm.size]
}

// below returns the range of data blocks below the hash block of a level that
// is above a data block.
func (t *Tree) below(block uint64, level int) (first, end uint64) {
	shift := t.shift * uint(level+1)
	if level == len(t.levels)-1 { // shift may exceed 63
		return 0, t.params.DataBlocks
	}
	first = block >> shift << shift
	return first, min(t.params.DataBlocks, first+1<<shift)
}

// newHasher returns a hasher for the tree's blocks.
func (t *Tree) newHasher() hasher {
	return hasher{hash: t.algorithm.new(), salt: t.params.Salt}
}
