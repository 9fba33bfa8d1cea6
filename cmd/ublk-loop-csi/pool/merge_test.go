package pool

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/transfer/snapshot"
)

// fill writes chunks of one byte each to a store without changes.
func fill(t *testing.T, p *Pool, id string, chunks map[uint64]byte) {
	t.Helper()
	f, err := p.Layers.OpenImage(id, os.O_RDWR)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	layout, err := snapshot.NewLayout(chunkBytes)
	if err != nil {
		t.Fatal(err)
	}
	b, err := snapshot.NewBuilder(f, layout, 1<<30, nil)
	if err != nil {
		t.Fatal(err)
	}
	for chunk, value := range chunks {
		if err := b.Add(chunk, bytes.Repeat([]byte{value}, chunkBytes)); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Finish(); err != nil {
		t.Fatal(err)
	}
}

// shows returns the content of a layer with those below it.
func shows(t *testing.T, p *Pool, top string) []byte {
	t.Helper()
	chain, err := p.Chain(top)
	if err != nil {
		t.Fatal(err)
	}
	files, err := p.OpenLayers(chain, os.O_RDONLY)
	if err != nil {
		t.Fatal(err)
	}
	defer CloseLayers(files)
	f, err := os.Create(filepath.Join(t.TempDir(), "flat"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if err := flatten(t.Context(), f, chain, files); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// Merged layers show what they showed before, also the last chunk, which is not complete, and also
// when the merge is repeated after it was cut off.
func TestMerge(t *testing.T) {
	p := newPool(t)
	const size = 10*chunkBytes + 4096
	ids := []string{NewLayerID("n"), NewLayerID("n"), NewLayerID("n"), NewLayerID("n")}
	if err := p.MakeImageLayer(ids[0], size, false); err != nil {
		t.Fatal(err)
	}
	for i, chunks := range []map[uint64]byte{{0: 1, 1: 1, 10: 1}, {1: 2, 2: 2}, {2: 3, 3: 3, 10: 3}} {
		if err := p.MakeStore(ids[i+1], ids[i], false); err != nil {
			t.Fatal(err)
		}
		fill(t, p, ids[i+1], chunks)
	}
	want := [][]byte{shows(t, p, ids[1]), shows(t, p, ids[2]), shows(t, p, ids[3])}
	read := func(i int) *Layer {
		l, err := p.Layers.Read(ids[i])
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	both := NewLayerID("n")
	for range 2 {
		if err := p.MergeStores(t.Context(), both, read(2), read(3)); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(shows(t, p, both), want[2]) {
			t.Error("the merged store shows something else")
		}
	}
	for range 2 {
		if err := p.MergeIntoImage(t.Context(), read(1)); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(shows(t, p, ids[0]), want[0]) {
			t.Error("the image shows something else")
		}
	}
	one := read(1)
	one.Into = ids[0]
	if err := errors.Join(p.Layers.Write(one.ID, one), p.Layers.RemoveImage(one.ID)); err != nil {
		t.Fatal(err)
	}
	for i, id := range ids[1:] {
		if !bytes.Equal(shows(t, p, id), want[i]) {
			t.Errorf("layer %d shows something else", i)
		}
	}
	if l, err := p.Layers.Read(both); err != nil || l.Parent != ids[1] {
		t.Errorf("%+v, error %v", l, err)
	}
	image := read(0)
	image.Into = one.ID
	if err := p.Layers.Write(image.ID, image); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Layer(one.ID); !errors.Is(err, unix.ELOOP) {
		t.Errorf("layers that were merged into each other: error %v", err)
	}
}
