package verity

import (
	"bytes"
	"fmt"
	"io"
)

// readSize is how much data is read at once, in bytes: as much as a processor's
// cache keeps until it is hashed. Larger blocks are read one at a time.
const readSize = 128 << 10

// newReadBuffer returns a buffer for one or more whole data blocks.
func (t *Tree) newReadBuffer() []byte {
	return make([]byte, min(max(readSize, uint64(t.params.DataBlockSize)), t.params.DataSize()))
}

// Build reads the data, writes the hash blocks to their offsets in hash, and
// returns the root hash. It reads no more than the data of the tree's parameters,
// and returns an error that wraps io.ErrUnexpectedEOF if the data ends before. It
// needs 128 KiB or a data block, and one hash block for each level.
func (t *Tree) Build(data io.Reader, hash io.WriterAt) ([]byte, error) {
	b := builder{t: t, hasher: t.newHasher(), out: hash, open: make([]openBlock, len(t.levels))}
	for i := range b.open {
		b.open[i].bytes = make([]byte, t.params.HashBlockSize)
	}
	buf := t.newReadBuffer()
	size := int(t.params.DataBlockSize)
	for at := uint64(0); at < t.params.DataSize(); {
		part := buf[:min(uint64(len(buf)), t.params.DataSize()-at)]
		if n, err := io.ReadFull(data, part); err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return nil, fmt.Errorf("read data at byte %d: %w", at+uint64(n), err)
		}
		at += uint64(len(part))
		for ; len(part) > 0; part = part[size:] {
			if err := b.add(0, b.hasher.digest(part[:size])); err != nil {
				return nil, err
			}
		}
	}
	return b.finish()
}

// A builder has one unfinished hash block for each level.
type builder struct {
	t      *Tree
	hasher hasher
	out    io.WriterAt
	open   []openBlock
	root   []byte
}

// An openBlock is a hash block that gets its digests.
type openBlock struct {
	bytes []byte
	used  int    // slots
	index uint64 // of the block in its level
}

// add appends a digest to a level.
func (b *builder) add(level int, digest []byte) error {
	if level == len(b.open) {
		b.root = bytes.Clone(digest)
		return nil
	}
	o := &b.open[level]
	copy(o.bytes[o.used*b.t.slot:], digest)
	o.used++
	if o.used < 1<<b.t.shift {
		return nil
	}
	return b.write(level)
}

// write writes the hash block of a level, and appends its digest to the next.
func (b *builder) write(level int) error {
	o := &b.open[level]
	n := b.t.levels[level].first + o.index
	at := b.t.start + n*uint64(len(o.bytes))
	if _, err := b.out.WriteAt(o.bytes, int64(at)); err != nil {
		return fmt.Errorf("write hash block %d at byte %d: %w", n, at, err)
	}
	digest := b.hasher.digest(o.bytes)
	clear(o.bytes)
	o.used = 0
	o.index++
	return b.add(level+1, digest)
}

// finish writes the blocks that are not full, and returns the root hash.
func (b *builder) finish() ([]byte, error) {
	for level := range b.open {
		if b.open[level].used == 0 {
			continue
		}
		if err := b.write(level); err != nil {
			return nil, err
		}
	}
	return b.root, nil
}
