package snapshot

import (
	"bytes"
	"slices"
	"testing"
)

// Records are removed from the end, area by area, and the list that is left is valid.
func TestRemove(t *testing.T) {
	l := layoutOf(t, MinChunkSize)
	for _, n := range []int{0, 1, 255, 256, 257, 700} {
		records := someRecords(l, n, origin, 1)
		store := storeOf(l, records)
		g := newLog(t, store, 512)
		left := slices.Clone(records)
		memory := make([]Record, 50)
		for {
			more, err := g.Back(store)
			if err != nil {
				t.Fatal(err)
			}
			if !more {
				break
			}
			last := g.Last(memory)
			if want := left[len(left)-len(last):]; !slices.Equal(last, want) {
				t.Fatalf("%d records: last are %v, want %v", n, last, want)
			}
			b := g.Remove(len(last))
			copy(store.chunk(uint64(b.Records.Offset) >> l.Shift())[b.Records.Offset&int64(l.ChunkSize()-1):], b.Records.Data)
			g.Commit()
			left = left[:len(left)-len(last)]
			var got []Record
			if _, err := Scan(store, l, 1<<30, func(e Record) error { got = append(got, e); return nil }); err != nil || !slices.Equal(got, left) {
				t.Fatalf("%d records: %d are left, want %d, error %v", n, len(got), len(left), err)
			}
		}
		if len(left) != 0 || g.Records() != 0 {
			t.Errorf("%d records: %d are left", n, len(left))
		}
		for area := range uint64(3) {
			if !isZero(store.chunk(l.Area(area))) {
				t.Errorf("%d records: area %d is not zero", n, area)
			}
		}
	}
}

// After Revert the records are there again.
func TestRevertRemove(t *testing.T) {
	l := layoutOf(t, MinChunkSize)
	records := someRecords(l, 100, origin, 1)
	g := newLog(t, storeOf(l, records), 512)
	before := bytes.Clone(g.b)
	g.Remove(70)
	g.Revert()
	if last := g.Last(make([]Record, 100)); !slices.Equal(last, records) || !bytes.Equal(before, g.b) {
		t.Errorf("%v", last)
	}
}

// A removal that fails can have reached the medium, or a part of it. Whatever batch follows, the
// medium then has the list again.
func TestRemovalFails(t *testing.T) {
	l := layoutOf(t, MinChunkSize)
	records := someRecords(l, 101, origin, 1)
	for name, next := range map[string]func(g *Log) (Batch, []Record){
		"no record":           func(g *Log) (Batch, []Record) { return g.Append(nil), records[:100] },
		"a record":            func(g *Log) (Batch, []Record) { return g.Append(records[100:]), records },
		"a shorter removal":   func(g *Log) (Batch, []Record) { return g.Remove(3), records[:97] },
		"a longer removal":    func(g *Log) (Batch, []Record) { return g.Remove(80), records[:20] },
		"another one failing": func(g *Log) (Batch, []Record) { g.Remove(3); g.Revert(); return g.Append(nil), records[:100] },
	} {
		for reached := range 4 {
			store := storeOf(l, records[:100])
			g := newLog(t, store, 512)
			if g.InDoubt() {
				t.Error("a log is in doubt")
			}
			failed := g.Remove(70).Records
			area := store.chunk(l.Area(0))
			copy(area[failed.Offset-l.Offset(1):], failed.Data[:reached*512])
			g.Revert()
			if !g.InDoubt() {
				t.Errorf("%s: not in doubt after a failed removal", name)
			}
			b, want := next(g)
			copy(area[b.Records.Offset-l.Offset(1):], b.Records.Data)
			g.Commit()
			var got []Record
			if _, err := Scan(store, l, 1<<30, func(e Record) error { got = append(got, e); return nil }); err != nil || !slices.Equal(got, want) {
				t.Errorf("%s after %d blocks: %d records, want %d, error %v", name, reached, len(got), len(want), err)
			}
			if g.InDoubt() {
				t.Errorf("%s: in doubt after a batch", name)
			}
		}
	}
}
