package verity

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
)

// An area is a hash area in memory.
type area []byte

func (a *area) WriteAt(b []byte, at int64) (int, error) {
	if grow := int(at) + len(b) - len(*a); grow > 0 {
		*a = append(*a, make([]byte, grow)...)
	}
	return copy((*a)[at:], b), nil
}

// An image is data with its tree.
type image struct {
	*Tree
	data []byte
	hash area
	root []byte
}

// params returns parameters with a salt of 7 bytes.
func params(algorithm string, dataBlockSize, hashBlockSize uint32, blocks uint64) Params {
	return Params{algorithm, dataBlockSize, hashBlockSize, blocks, []byte("7 bytes")}
}

// newImage builds the tree of random data at a hash block that is not the first.
func newImage(t testing.TB, p Params) *image {
	t.Helper()
	data := make([]byte, p.DataBlocks*uint64(p.DataBlockSize))
	_, _ = rand.NewChaCha8([32]byte{byte(p.DataBlocks)}).Read(data)
	return buildImage(t, p, data, 3*uint64(p.HashBlockSize))
}

func buildImage(t testing.TB, p Params, data []byte, start uint64) *image {
	t.Helper()
	tree, err := NewTree(p, start)
	if err != nil {
		t.Fatal(err)
	}
	m := &image{Tree: tree, data: data}
	if m.root, err = tree.Build(bytes.NewReader(data), &m.hash); err != nil {
		t.Fatal(err)
	}
	return m
}

// verify returns the blocks that Verify reports.
func (m *image) verify(t testing.TB) []Bad {
	t.Helper()
	var all []Bad
	err := m.Verify(bytes.NewReader(m.data), bytes.NewReader(m.hash), m.root, func(b Bad) bool {
		all = append(all, b)
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// hashBlock returns the bytes of a hash block.
func (m *image) hashBlock(number uint64) []byte {
	size := uint64(m.params.HashBlockSize)
	return m.hash[m.start+number*size:][:size]
}

// dataBlock returns the bytes of a data block.
func (m *image) dataBlock(number uint64) []byte {
	size := uint64(m.params.DataBlockSize)
	return m.data[number*size:][:size]
}

// A reader counts what it reads.
type reader struct {
	io.ReaderAt
	reads, bytes int
}

func (r *reader) ReadAt(b []byte, at int64) (int, error) {
	r.reads++
	r.bytes += len(b)
	return r.ReaderAt.ReadAt(b, at)
}

// seq returns the first bytes of seq's output.
func seq(size int) []byte {
	b := make([]byte, 0, size+20)
	for i := int64(1); len(b) < size; i++ {
		b = append(strconv.AppendInt(b, i, 10), '\n')
	}
	return b[:size]
}

// expectErr fails the test unless err wraps want, and is one line that contains
// a text.
func expectErr(t testing.TB, err, want error, text string) {
	t.Helper()
	if !errors.Is(err, want) || !strings.Contains(err.Error(), text) || strings.ContainsAny(err.Error(), "\n\r\x1b") {
		t.Errorf("error %v, want %v with %q", err, want, text)
	}
}
