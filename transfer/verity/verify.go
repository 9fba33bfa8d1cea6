package verity

import (
	"fmt"
	"io"
)

// A Kind says what is wrong with a block.
type Kind int

// These are the kinds.
const (
	// DataMismatch is a data block whose digest is another one than in the tree.
	DataMismatch Kind = iota
	// HashMismatch is a hash block whose digest is another one than in the tree. The
	// data blocks below it cannot be checked.
	HashMismatch
	// NotZero is a hash block with the right digest whose unused bytes are not
	// zero. The kernel does not check them. They show that the number of data blocks
	// in the superblock is too small, or that another program made the tree.
	NotZero
)

// A Bad is a block that Verify found to be wrong.
type Bad struct {
	Kind Kind
	// Number counts the data blocks, or the hash blocks from the start of the tree.
	Number uint64
	// Level is the level of a hash block.
	Level int
	// Offset is where the block is in data or hash, in bytes.
	Offset uint64
	// Root is true if the block was compared with the root hash itself.
	Root bool
	// First and End are the range of the data blocks below a hash block.
	First, End uint64
}

// String describes the block in one line.
func (b *Bad) String() string {
	against := "the tree"
	if b.Root {
		against = "the root hash"
	}
	switch b.Kind {
	case DataMismatch:
		return fmt.Sprintf("data block %d at byte %d does not match %s", b.Number, b.Offset, against)
	case HashMismatch:
		return fmt.Sprintf("hash block %d (level %d) at byte %d does not match %s, so data blocks %d to %d cannot be checked",
			b.Number, b.Level, b.Offset, against, b.First, b.End-1)
	}
	return fmt.Sprintf("hash block %d (level %d) at byte %d has unused bytes that are not zero", b.Number, b.Level, b.Offset)
}

// verifyBlocks is the number of hash blocks that Verify remembers, at most 4 MiB.
// It reads a hash block of level 2 or above again after some blocks of level 0.
const verifyBlocks = 8

// Verify checks the whole data and tree against a root hash. It calls bad for
// each wrong block, in the order of the data; a hash block comes before the data
// below it. It stops if bad returns false. An error means that the check could not
// be done. Verify needs 128 KiB or a data block, and some hash blocks of
// memory.
func (t *Tree) Verify(data, hash io.ReaderAt, root []byte, bad func(Bad) bool) error {
	v, err := NewVerifier(t, root, make([]byte, verifyBlocks*int(t.params.HashBlockSize)))
	if err != nil {
		return err
	}
	w := walk{
		Verifier: v, report: bad, hash: hash, hashBlock: make([]byte, t.params.HashBlockSize),
		data: blockReader{from: data, size: uint64(t.params.DataBlockSize), end: t.params.DataSize(), buf: t.newReadBuffer()},
	}
	for block := uint64(0); block < t.params.DataBlocks && !w.stopped; {
		if block, err = w.check(block); err != nil {
			return err
		}
	}
	return nil
}

// A walk is the state of Verify.
type walk struct {
	*Verifier
	data      blockReader
	hash      io.ReaderAt
	hashBlock []byte
	report    func(Bad) bool
	stopped   bool
}

func (w *walk) bad(b Bad) { w.stopped = w.stopped || !w.report(b) }

// check checks a data block and the hash blocks above it, and returns the next
// block to check.
func (w *walk) check(block uint64) (uint64, error) {
	p := w.Start(block)
	for {
		need, missing := w.Next(&p)
		if !missing {
			break
		}
		if err := readFull(w.hash, w.hashBlock, need.Offset); err != nil {
			return 0, fmt.Errorf("read hash block %d: %w", need.Number, err)
		}
		b := Bad{Number: need.Number, Level: need.Level, Offset: need.Offset, Root: p.level == len(w.tree.levels)}
		b.First, b.End = w.tree.below(block, need.Level)
		if !w.AddHash(&p, w.hashBlock) {
			b.Kind = HashMismatch
			w.bad(b)
			return b.End, nil
		}
		// A block that has been forgotten and comes again is not reported again.
		if block == b.First && !w.tree.restIsZero(w.hashBlock, &b) {
			b.Kind = NotZero
			w.bad(b)
		}
	}
	data, err := w.data.block(block)
	if err != nil {
		return 0, fmt.Errorf("read data block %d: %w", block, err)
	}
	if !w.CheckData(&p, data) {
		w.bad(Bad{Kind: DataMismatch, Number: block, Offset: block * w.data.size, Root: len(w.tree.levels) == 0})
	}
	return block + 1, nil
}

// restIsZero reports whether the bytes of a hash block that hold no digest are
// zero.
func (t *Tree) restIsZero(hash []byte, b *Bad) bool {
	used := int((b.End-b.First-1)>>(t.shift*uint(b.Level))) + 1
	for i := range 1 << t.shift {
		rest := hash[i*t.slot:][:t.slot]
		if i < used {
			rest = rest[t.algorithm.size:]
		}
		if !isZero(rest) {
			return false
		}
	}
	return true
}

// A blockReader reads many data blocks at once.
type blockReader struct {
	from       io.ReaderAt
	size, end  uint64 // bytes
	buf        []byte
	have, upTo uint64 // the range of data that buf has
}

// block returns a data block. It is valid until the next call.
func (r *blockReader) block(n uint64) ([]byte, error) {
	at := n * r.size
	if at < r.have || at >= r.upTo {
		part := r.buf[:min(uint64(len(r.buf)), r.end-at)]
		r.have, r.upTo = 0, 0
		if err := readFull(r.from, part, at); err != nil {
			return nil, err
		}
		r.have, r.upTo = at, at+uint64(len(part))
	}
	return r.buf[at-r.have:][:r.size], nil
}

// readFull fills buf from an offset, and returns io.ErrUnexpectedEOF at an early
// end.
func readFull(r io.ReaderAt, buf []byte, at uint64) error {
	n, err := r.ReadAt(buf, int64(at))
	switch {
	case n == len(buf):
		return nil
	case err == io.EOF:
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("%d bytes at byte %d: %w", len(buf), at, err)
}
