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
	b := g.Remove(3)
	if b.Count != 3 || b.Records.Offset != l.Offset(1)+1536 || len(b.Records.Data) != 512 {
		t.Errorf("%d records, %d bytes at %d", b.Count, len(b.Records.Data), b.Records.Offset-l.Offset(1))
	}
}
