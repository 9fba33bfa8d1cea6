package verity

import (
	"errors"
	"fmt"
	"io"
)

// ErrMismatch is returned for a tree whose blocks have other digests than the root hash leads
// to.
var ErrMismatch = errors.New("not the image of the root hash")

// CheckEnd checks the number of data blocks, which no digest covers, against the tree: it reads
// the last hash block of each level. All slots behind the number have to be empty, and the last
// one before it has to be in use. So another number is found, unless the program that has made
// the tree fills unused slots. One other number agrees for each level, if data and hash blocks
// have the same size: the data is then the hash blocks of that level. The error wraps ErrMismatch, or is one of reading.
func (t *Tree) CheckEnd(hash io.ReaderAt, root []byte) error {
	v, err := NewVerifier(t, root, nil)
	if err != nil {
		return err
	}
	last := t.params.DataBlocks - 1
	p, block := v.Start(last), make([]byte, t.params.HashBlockSize)
	for {
		need, missing := v.Next(&p)
		if !missing {
			return nil
		}
		if err := readFull(hash, block, need.Offset); err != nil {
			return fmt.Errorf("read hash block %d: %w", need.Number, err)
		}
		b := Bad{Number: need.Number, Level: need.Level, Offset: need.Offset, Root: p.level == len(t.levels), Kind: HashMismatch}
		b.First, b.End = t.below(last, need.Level)
		switch {
		case !v.AddHash(&p, block):
			return fmt.Errorf("%s: %w", b.String(), ErrMismatch)
		case !t.restIsZero(block, &b):
			return fmt.Errorf("the tree is of more than %d data blocks: %w", t.params.DataBlocks, ErrMismatch)
		case isZero(t.digestIn(block, last, need.Level)):
			return fmt.Errorf("the tree is of less than %d data blocks: %w", t.params.DataBlocks, ErrMismatch)
		}
	}
}
