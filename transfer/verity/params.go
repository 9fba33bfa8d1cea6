package verity

import (
	"fmt"
	"math"
	"math/bits"
)

// Limits of the format (cryptsetup's lib/verity/verity.h and verity.c).
const (
	// MinBlockSize and MaxBlockSize limit the sizes of data and hash blocks, in
	// bytes. A size is a power of 2.
	MinBlockSize = 512
	MaxBlockSize = 512 << 10
	// MaxSalt is the maximum length of the salt in bytes.
	MaxSalt = 256
)

// Params describe a tree.
type Params struct {
	// Algorithm is sha256, sha512 or sha1.
	Algorithm string
	// DataBlockSize and HashBlockSize are in bytes.
	DataBlockSize, HashBlockSize uint32
	// DataBlocks is the number of data blocks, at least 1.
	DataBlocks uint64
	// Salt precedes each block in its digest. It may be empty.
	Salt []byte
}

// DataSize returns the length of the data in bytes. The parameters must have
// been checked, by ParseSuperblock or NewTree.
func (p *Params) DataSize() uint64 { return p.DataBlocks * uint64(p.DataBlockSize) }

// check returns the algorithm, or an error for parameters that the format does
// not allow. Every digest fits into a hash block at least 8 times, because the
// smallest block has 512 bytes.
func (p *Params) check() (algorithm, error) {
	for _, b := range []struct {
		what string
		size uint32
	}{{"data", p.DataBlockSize}, {"hash", p.HashBlockSize}} {
		if b.size < MinBlockSize || b.size > MaxBlockSize || bits.OnesCount32(b.size) != 1 {
			return algorithm{}, fmt.Errorf("%s block size %d: a power of 2 from %d to %d is possible: %w",
				b.what, b.size, MinBlockSize, MaxBlockSize, ErrInvalid)
		}
	}
	switch {
	case p.DataBlocks == 0:
		return algorithm{}, fmt.Errorf("no data blocks: %w", ErrInvalid)
	case p.DataBlocks > math.MaxInt64/uint64(p.DataBlockSize):
		return algorithm{}, fmt.Errorf("%d data blocks of %d bytes: %w", p.DataBlocks, p.DataBlockSize, ErrTooLarge)
	case len(p.Salt) > MaxSalt:
		return algorithm{}, fmt.Errorf("salt of %d bytes, the maximum is %d: %w", len(p.Salt), MaxSalt, ErrInvalid)
	}
	return algorithmNamed(p.Algorithm)
}
