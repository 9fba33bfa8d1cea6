package stack

import (
	"bytes"
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/ublk-loop/ublk-loop/loop/internal/cow"
	"github.com/ublk-loop/ublk-loop/transfer/table"
	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// fullBed serves a snapshot of 64 chunks with a store that is full.
func fullBed(t *testing.T, use func(b *bed, m *Merge, write func(chunk int))) {
	dir := snapshotDir(t)
	if err := os.Truncate(filepath.Join(dir, "B"), (2+fullChunks)*4096); err != nil {
		t.Fatal(err)
	}
	serve(t, dir, "0 512 snapshot $A $B P 8", Options{}, func(b *bed) {
		model := b.whole()
		write := func(chunk int) {
			data := bytes.Repeat([]byte{byte(rand.Int()), byte(chunk)}, 256)
			b.must(ublktest.Request{Op: ublk.OpWrite, StartSector: uint64(chunk * 8), Sectors: 1, Data: data})
			copy(model[chunk*4096:], data)
		}
		for _, chunk := range rand.Perm(fullChunks) {
			write(chunk)
		}
		if free := b.stack.stores[0].Free(); free != 0 {
			t.Fatalf("%d chunks of the store are free", free)
		}
		lastBytesOf(t, 4096)
		m, err := b.stack.NewMerge()
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		m.run = m.run[:3]
		use(b, m, write)
		if got := b.whole(); !bytes.Equal(got, model) {
			t.Error("the device has other data")
		}
		if state := b.stack.stores[0].Usage().State; state != "" {
			t.Errorf("state %q", state)
		}
	})
}

const fullChunks = 64

// Writes during the merge of a full store do not fill it: they get the chunks of what was merged
// before, and the device keeps its requests while few are free.
func TestMergeOfFullStore(t *testing.T) {
	fullBed(t, func(b *bed, m *Merge, write func(chunk int)) {
		const added = 8 // an eighth of the store
		index, total := b.stack.stores[0].Index, 0
		g := &gate{waiting: func() {
			n := 0
			for _, chunk := range rand.Perm(fullChunks) {
				if n < added && total < 20*fullChunks && index.Lookup(uint64(chunk)).IsNone() {
					write(chunk)
					n++
				}
			}
			total += n
		}}
		if err := m.Do(context.Background(), g.hold); err != nil {
			t.Fatal(err)
		}
		if total < fullChunks {
			t.Errorf("only %d first writes during the merge", total)
		}
	})
}

// The store uses less space after each run.
func TestMergeFreesChunks(t *testing.T) {
	fullBed(t, func(b *bed, m *Merge, _ func(chunk int)) {
		store := b.stack.stores[0]
		g := &gate{resumed: func() {
			want := uint64(2 * 8)
			for chunk := range store.Index.Len() {
				if !store.Index.Lookup(chunk).IsNone() {
					want += 8
				}
			}
			if got := store.Usage().Allocated; got != want {
				t.Errorf("%d sectors are used, want %d", got, want)
			}
		}}
		if err := m.Do(context.Background(), g.hold); err != nil {
			t.Fatal(err)
		}
		if g.holds < fullChunks/8 {
			t.Errorf("only %d holds", g.holds)
		}
	})
}

// A store is narrow if fewer chunks are free than writes can need while a run is copied.
func TestMergeIsNarrow(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "store"))
	if err == nil {
		err = file.Truncate(20 * 4096)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	store, err := cow.Open(file, &cow.Options{Format: table.Persistent, ChunkBytes: 4096, OriginSize: 1 << 20, Block: 512})
	if err != nil {
		t.Fatal(err)
	}
	for reserve, want := range map[uint64]bool{17: false, 18: false, 19: true} {
		m := &Merge{store: store, reserve: reserve}
		if got := m.isNarrow(); got != want {
			t.Errorf("%d chunks are free, %d are the reserve: narrow %v", store.Free(), reserve, got)
		}
	}
	if err := store.Close(); err != nil {
		t.Error(err)
	}
}
