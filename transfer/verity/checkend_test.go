package verity

import (
	"bytes"
	"errors"
	"slices"
	"testing"
)

// Of all numbers of data blocks only the right one agrees with a tree and its root hash.
func TestCheckEnd(t *testing.T) {
	for _, blocks := range []uint64{1, 2, 7, 8, 9, 63, 64, 65, 511, 512, 513} {
		m := newImage(t, params("sha512", 512, 512, blocks))
		hash := bytes.NewReader(append(bytes.Clone(m.hash), make([]byte, 1<<20)...))
		for other := max(blocks, 20) - 19; other < blocks+100; other++ {
			p := m.params
			p.DataBlocks = other
			tree, err := NewTree(p, m.start)
			if err != nil {
				t.Fatal(err)
			}
			err = tree.CheckEnd(hash, m.root)
			// The upper levels are the tree of the hash blocks of a level.
			isLevel := slices.ContainsFunc(m.levels, func(l level) bool { return l.count == other })
			switch {
			case (other == blocks || isLevel) && err != nil:
				t.Errorf("%d blocks instead of %d: %v", other, blocks, err)
			case other != blocks && !isLevel && !errors.Is(err, ErrMismatch) && tree.Levels() > 0:
				t.Errorf("%d blocks instead of %d: %v", other, blocks, err)
			}
		}
	}
}

// CheckEnd reads one hash block of each level.
func TestCheckEndReadsLittle(t *testing.T) {
	m := newImage(t, params("sha256", 512, 512, 16*16*3))
	r := &reader{ReaderAt: bytes.NewReader(m.hash)}
	if err := m.CheckEnd(r, m.root); err != nil || r.reads != m.Levels() {
		t.Errorf("%d reads for %d levels, %v", r.reads, m.Levels(), err)
	}
	if err := m.CheckEnd(bytes.NewReader(nil), m.root); err == nil || errors.Is(err, ErrMismatch) {
		t.Errorf("a tree that cannot be read: %v", err)
	}
	if err := m.CheckEnd(bytes.NewReader(m.hash), m.root[1:]); !errors.Is(err, ErrInvalid) {
		t.Errorf("a short root hash: %v", err)
	}
}
