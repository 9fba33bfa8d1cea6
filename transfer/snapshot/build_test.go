package snapshot

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// A built store has each chunk that was added, also over several areas, and can be full.
func TestBuilder(t *testing.T) {
	l := layoutOf(t, MinChunkSize)
	for _, n := range []uint64{1, uint64(l.Records()) - 1, uint64(l.Records()), 3*uint64(l.Records()) + 5} {
		f, err := os.Create(filepath.Join(t.TempDir(), "store"))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = f.Close() }()
		size := l.StoreSize(n)
		if err := f.Truncate(int64(size)); err != nil {
			t.Fatal(err)
		}
		label := &Label{UUID: NewUUID(), Frozen: true, OriginSize: 8 << 20}
		b, err := NewBuilder(f, l, size, label)
		if err != nil {
			t.Fatal(err)
		}
		data := make([]byte, l.ChunkSize())
		for i := range n {
			binary.LittleEndian.PutUint64(data, i)
			if err := b.Add(2*n-2*i, data); err != nil {
				t.Fatal(err)
			}
		}
		if err := b.Add(1, data); !errors.Is(err, ErrFull) {
			t.Errorf("%d chunks: one more: error %v", n, err)
		}
		if err := b.Finish(); err != nil {
			t.Fatal(err)
		}
		index := NewIndex(make([]uint32, 2*n+2))
		if _, err := Load(f, l, size, index); err != nil {
			t.Fatalf("%d chunks: %v", n, err)
		}
		if h, got, err := ReadLabelled(f); err != nil || !h.Valid || got.UUID != label.UUID || !got.Frozen {
			t.Errorf("%d chunks: header %+v, label %+v, error %v", n, h, got, err)
		}
		for i := range n {
			slot := index.Lookup(2*n - 2*i)
			got := make([]byte, l.ChunkSize())
			if _, err := f.ReadAt(got, l.Offset(slot.Chunk())); err != nil || !slot.Replaced() || binary.LittleEndian.Uint64(got) != i {
				t.Fatalf("%d chunks: chunk %d has slot %d, error %v", n, i, slot, err)
			}
		}
		if index.Lookup(1).Replaced() || !bytes.Equal(data[8:], make([]byte, len(data)-8)) {
			t.Errorf("%d chunks: another chunk is there", n)
		}
	}
}
