package verity

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"runtime"
	"testing"
	"testing/iotest"
)

// reference returns the root hash and the tree, made without this package's code:
// level by level, in memory.
func reference(p Params, data []byte) (root, tree []byte) {
	a, err := algorithmNamed(p.Algorithm)
	if err != nil {
		panic(err)
	}
	digest := func(block []byte) []byte {
		h := a.new()
		h.Write(append(bytes.Clone(p.Salt), block...))
		return h.Sum(nil)
	}
	slot := 1
	for slot < a.size {
		slot *= 2
	}
	size := int(p.DataBlockSize)
	for {
		var next []byte
		for ; len(data) > 0; data = data[size:] {
			next = append(next, digest(data[:size])...)
			next = append(next, make([]byte, slot-a.size)...)
		}
		if len(next) == slot {
			return next[:a.size], tree
		}
		size = int(p.HashBlockSize)
		for len(next)%size != 0 {
			next = append(next, 0)
		}
		tree = append(bytes.Clone(next), tree...)
		data = next
	}
}

// geometries returns parameters with every hash, several block sizes, and numbers
// of blocks around those at which a level begins.
func geometries() []Params {
	var all []Params
	for _, a := range algorithms {
		for _, sizes := range [][2]uint32{{512, 512}, {512, 2048}, {1024, 512}} {
			k := uint64(1)
			for 2*k*uint64(a.size) <= uint64(sizes[1]) {
				k *= 2
			}
			for _, n := range []uint64{1, 2, k - 1, k, k + 1, 2*k + 1, k*k - 1, k * k, k*k + 1} {
				all = append(all, params(a.name, sizes[0], sizes[1], n))
			}
		}
	}
	return append(all, params("sha512", 512, 512, 8*8*8+1))
}

func TestTreeIsReference(t *testing.T) {
	for _, p := range geometries() {
		m := newImage(t, p)
		root, tree := reference(p, m.data)
		if !bytes.Equal(root, m.root) || !bytes.Equal(tree, m.hash[min(len(m.hash), int(m.start)):]) {
			t.Errorf("%+v: another root hash or tree", p)
		}
		if want := m.start + uint64(len(tree)); m.End() != want || m.HashBlocks()*uint64(p.HashBlockSize) != uint64(len(tree)) {
			t.Errorf("%+v: end %d, want %d", p, m.End(), want)
		}
		if bad := m.verify(t); bad != nil {
			t.Errorf("%+v: %v", p, bad)
		}
	}
}

// The largest trees have right offsets and ranges, and larger ones are refused.
func TestNewTreeLimits(t *testing.T) {
	for _, tt := range []struct {
		p      Params
		start  uint64
		levels int
		blocks uint64
		want   error
	}{
		{Params{"sha512", 512, 512, 1 << 53, nil}, 0, 18, (1<<53)/7 + 1, nil},
		{Params{"sha1", 512, 512 << 10, 1<<54 - 1, nil}, 512 << 10, 4, 1<<40 + 1<<26 + 1<<12 + 1, nil},
		{Params{"sha1", 512, 256 << 10, 1<<54 - 1, nil}, 0, 5, 1<<41 + 1<<28 + 1<<15 + 4 + 1, nil},
		{Params{"sha256", 4096, 4096, 1, nil}, math.MaxInt64 &^ 4095, 0, 0, nil},
		{Params{"sha256", 4096, 4096, 2, nil}, math.MaxInt64 &^ 4095, 0, 0, ErrTooLarge},
		{Params{"sha256", 4096, 4096, 2, nil}, math.MaxUint64 &^ 4095, 0, 0, ErrTooLarge},
		{Params{"sha512", 512, 512 << 10, 1<<54 - 1, nil}, math.MaxInt64 &^ (1<<20 - 1), 0, 0, ErrTooLarge},
		{Params{"sha256", 4096, 4096, 2, nil}, 512, 0, 0, ErrInvalid},
		{Params{"md5", 4096, 4096, 2, nil}, 0, 0, 0, ErrUnsupported},
	} {
		tree, err := NewTree(tt.p, tt.start)
		if tt.want != nil {
			expectErr(t, err, tt.want, "")
			continue
		}
		if err != nil {
			t.Errorf("%+v: %v", tt.p, err)
			continue
		}
		if tree.Levels() != tt.levels || tree.HashBlocks() != tt.blocks {
			t.Errorf("%+v: %d levels, %d blocks, want %d, %d", tt.p, tree.Levels(), tree.HashBlocks(), tt.levels, tt.blocks)
		}
		tree.expectPath(t, 0)
		tree.expectPath(t, tt.p.DataBlocks-1)
	}
}

// expectPath fails the test unless the hash blocks above a data block lie in
// their levels, and the ranges below them contain the block and grow.
func (t *Tree) expectPath(tt *testing.T, block uint64) {
	tt.Helper()
	below := uint64(1)
	for level, l := range t.levels {
		h := t.above(block, level)
		first, end := t.below(block, level)
		inLevel := h.Number >= l.first && h.Number < l.first+l.count
		if !inLevel || h.Offset < t.start || h.Offset >= t.End() || block < first || block >= end || end > t.params.DataBlocks {
			tt.Errorf("%+v: block %d, level %d: %+v above %d to %d", t.params, block, level, h, first, end)
		}
		if level == len(t.levels)-1 && (h.Number != 0 || first != 0 || end != t.params.DataBlocks) || end-first < min(below, 1) {
			tt.Errorf("%+v: the top is %+v above %d to %d", t.params, h, first, end)
		}
		below = end - first
	}
}

// Errors of the reader and the writer are returned, with the place.
func TestBuildErrors(t *testing.T) {
	m := newImage(t, params("sha256", 512, 512, 20))
	_, err := m.Build(bytes.NewReader(m.data[:len(m.data)-1]), &m.hash)
	expectErr(t, err, io.ErrUnexpectedEOF, "at byte 10239")
	_, err = m.Build(bytes.NewReader(nil), &m.hash)
	expectErr(t, err, io.ErrUnexpectedEOF, "at byte 0")
	_, err = m.Build(io.MultiReader(bytes.NewReader(m.data[:512]), iotest.ErrReader(io.ErrClosedPipe)), &m.hash)
	expectErr(t, err, io.ErrClosedPipe, "at byte 512")
	for level := range m.levels {
		at := m.start + m.levels[level].first*512
		_, err = m.Build(bytes.NewReader(m.data), failing{int64(at)})
		expectErr(t, err, errWrite, fmt.Sprintf("at byte %d", at))
	}
}

var errWrite = errors.New("disk full")

// failing fails to write at an offset.
type failing struct{ at int64 }

func (f failing) WriteAt(b []byte, at int64) (int, error) {
	if at == f.at {
		return 0, errWrite
	}
	return len(b), nil
}

// Build reads no more than the data, in parts of any size.
func TestBuildReadsOnlyTheData(t *testing.T) {
	m := newImage(t, params("sha512", 512, 512, 20))
	rest := bytes.NewReader(append(bytes.Clone(m.data), "rest"...))
	if root, err := m.Build(iotest.OneByteReader(rest), &m.hash); err != nil || !bytes.Equal(root, m.root) || rest.Len() != 4 {
		t.Errorf("root hash %x, %v, %d bytes left", root, err, rest.Len())
	}
}

// zeros is endless.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

func (zeros) ReadAt(b []byte, _ int64) (int, error) {
	clear(b)
	return len(b), nil
}

// The memory does not depend on the amount of data.
func TestMemoryIsBounded(t *testing.T) {
	tree, err := NewTree(params("sha256", 4096, 4096, 16<<10), 0)
	if err != nil {
		t.Fatal(err)
	}
	expectMemory(t, "Build", func() error {
		_, err := tree.Build(zeros{}, failing{-1})
		return err
	})
	// Every leaf is zero, which is not the digest of a data block.
	m := newImage(t, params("sha256", 4096, 4096, 2048))
	expectMemory(t, "Verify", func() error {
		return m.Verify(bytes.NewReader(m.data), bytes.NewReader(m.hash), m.root, func(Bad) bool { return true })
	})
}

// expectMemory fails the test if f allocates more than 256 KiB.
func expectMemory(t *testing.T, what string, f func() error) {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if err := f(); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > 256<<10 {
		t.Errorf("%s: %d bytes allocated", what, got)
	}
}
