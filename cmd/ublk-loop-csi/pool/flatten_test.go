package pool

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// callingContext calls a function when it is asked for an error, which a copy does before each chunk.
type callingContext struct {
	context.Context
	call func()
}

func (c *callingContext) Err() error {
	c.call()
	return nil
}

// newLayers makes an image with two stores above it, and returns their ids.
func newLayers(t *testing.T, p *Pool, size int64) []string {
	t.Helper()
	ids := []string{NewLayerID("n"), NewLayerID("n"), NewLayerID("n")}
	if err := p.MakeImageLayer(ids[0], size, false); err != nil {
		t.Fatal(err)
	}
	image, err := p.Layers.OpenImage(ids[0], os.O_RDWR)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = image.Close() }()
	if _, err := image.WriteAt(bytes.Repeat([]byte{9}, int(size/2)), 0); err != nil {
		t.Fatal(err)
	}
	for i, chunks := range []map[uint64]byte{{0: 1, 1: 1, 4: 1}, {1: 2, 2: 2}} {
		if err := p.MakeStore(ids[i+1], ids[i], false); err != nil {
			t.Fatal(err)
		}
		fill(t, p, ids[i+1], chunks)
	}
	return ids
}

// The changes of a store that becomes shorter meanwhile are not applied as far as they are there.
func TestApplyShortenedStore(t *testing.T) {
	p := newPool(t)
	const size = 4*chunkBytes + 4096
	store, err := p.Layers.OpenImage(newLayers(t, p, size)[1], os.O_RDWR)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = store.Close() }()
	to, err := os.Create(filepath.Join(t.TempDir(), "to"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = to.Close() }()
	ctx := &callingContext{t.Context(), func() {
		if err := store.Truncate(2*chunkBytes + 512); err != nil { // header, first area, and a part of the first chunk
			t.Error(err)
		}
	}}
	if err := applyStore(ctx, to, store, size); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("error %v", err)
	}
}

// A disk has the same bytes as the file that is made of its layers, wherever it is read.
func TestDisk(t *testing.T) {
	p := newPool(t)
	const size = 4*chunkBytes + 4096
	top := newLayers(t, p, size)[2]
	want := shows(t, p, top)
	chain, err := p.Chain(top)
	if err != nil {
		t.Fatal(err)
	}
	files, err := p.OpenLayers(chain, os.O_RDONLY)
	if err != nil {
		t.Fatal(err)
	}
	disk, err := NewDisk(size, chain, files)
	if err != nil {
		t.Fatal(err)
	}
	defer disk.Close()
	for _, part := range [][2]int{{0, size}, {0, 1}, {chunkBytes - 3, chunkBytes + 7}, {2*chunkBytes + 1, 2 * chunkBytes}, {4 * chunkBytes, 4096}} {
		got := make([]byte, part[1])
		if n, err := disk.ReadAt(got, int64(part[0])); n != part[1] || err != nil {
			t.Errorf("%d bytes at %d: %d, error %v", part[1], part[0], n, err)
		}
		if !bytes.Equal(got, want[part[0]:part[0]+part[1]]) {
			t.Errorf("%d bytes at %d differ", part[1], part[0])
		}
	}
	if n, err := disk.ReadAt(make([]byte, 10), size-4); n != 4 || !errors.Is(err, io.EOF) {
		t.Errorf("%d bytes at the end, error %v", n, err)
	}
}
