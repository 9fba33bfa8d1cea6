package snapshot

import (
	"bytes"
	"errors"
	"slices"
	"testing"
)

// Records behind the end of the list are removed before the first record is written.
func TestStaleRecords(t *testing.T) {
	l := layoutOf(t, MinChunkSize)
	store := storeOf(l, someRecords(l, 31, origin, 1))
	store.put(32, Record{5, 600}) // in the second block of 512 bytes; the first one was lost
	store.put(95, Record{6, 601}) // in the third one
	g := newLog(t, store, 512)
	before := bytes.Clone(store.chunk(1)[:31*recordSize])
	b := g.Append([]Record{{7, 40}})
	if b.Count != 0 || b.Zero.Length != 0 || b.Records.Offset != l.Offset(1) || len(b.Records.Data) != 3*512 {
		t.Fatalf("first batch: %d records, zero %+v, %d bytes at %d", b.Count, b.Zero, len(b.Records.Data), b.Records.Offset)
	}
	if !bytes.Equal(b.Records.Data[:len(before)], before) || !isZero(b.Records.Data[len(before):]) {
		t.Fatal("the batch is not the list followed by zeroes")
	}
	g.Commit()
	b = g.Append([]Record{{7, 40}})
	if b.Count != 1 || b.Records.Offset != l.Offset(1) || len(b.Records.Data) != 512 {
		t.Fatalf("second batch: %d records, %d bytes at %d", b.Count, len(b.Records.Data), b.Records.Offset)
	}
}

// A log with little memory removes all stale records at once, too.
func TestStaleRecordsBehindMemory(t *testing.T) {
	l := layoutOf(t, MinChunkSize)
	store := storeOf(l, someRecords(l, 31, origin, 1))
	store.put(32, Record{5, 600})  // in the block behind the memory
	store.put(200, Record{6, 601}) // in block 6
	g := newLogWith(t, store, 512, 512)
	b := g.Append([]Record{{7, 40}})
	if want := (Range{l.Offset(1) + 512, 6 * 512}); b.Count != 0 || b.Zero != want || b.Records.Offset != l.Offset(1) || len(b.Records.Data) != 512 {
		t.Fatalf("%d records, zero %+v, %d bytes at %d", b.Count, b.Zero, len(b.Records.Data), b.Records.Offset)
	}
	g.Commit()
	if b = g.Append(make([]Record, 40)); b.Count != 1 || b.Records.Offset != l.Offset(1) || b.Zero.Length != 0 {
		t.Errorf("%d records at %d, zero %+v", b.Count, b.Records.Offset, b.Zero)
	}
}

// A log can get the memory that a merge needs. It goes on with the same list.
func TestWiden(t *testing.T) {
	l := layoutOf(t, MinChunkSize)
	for _, n := range []int{0, 1, 100, 255, 256, 300} {
		records := someRecords(l, n, origin, 1)
		store := storeOf(l, records)
		store.put(uint64(n)+1, Record{5, 600}) // stale
		g := newLogWith(t, store, 512, 1024)
		if err := g.Widen(store, make([]byte, l.ChunkSize())); err != nil {
			t.Fatal(err)
		}
		in := n % int(l.Records())
		if got := g.Last(make([]Record, n)); !slices.Equal(got, records[n-in:]) {
			t.Errorf("%d records: the last %d are %v", n, len(got), got)
		}
		whole := newLog(t, store, 512)
		if g.Records() != whole.Records() || !bytes.Equal(g.b, whole.b) || g.first != 0 {
			t.Errorf("%d records: %d after Widen", n, g.Records())
		}
	}
}

func newLog(t *testing.T, store *sparse, block int) *Log {
	t.Helper()
	return newLogWith(t, store, block, int(store.l.ChunkSize()))
}

func newLogWith(t *testing.T, store *sparse, block, memory int) *Log {
	t.Helper()
	s, _, err := loaded(store, store.l, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	g, err := NewLog(store.l, s, bytes.Repeat([]byte{0xff}, memory), block)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// A batch has the changed blocks only, ends with its area, and zeroes the next one.
func TestBatches(t *testing.T) {
	l := layoutOf(t, 8<<10)
	g := newLog(t, storeOf(l, someRecords(l, 255, origin, 1)), 4096)
	records := make([]Record, 300)
	for i := range records {
		records[i] = Record{uint64(i), l.DataChunk(uint64(255 + i))}
	}
	for _, want := range []struct {
		count          int
		offset, length int64
		zero           Range
	}{
		{1, l.Offset(1), 4096, Range{}},
		{2, l.Offset(1) + 4096, 4096, Range{}},
		{254, l.Offset(1) + 4096, 4096, Range{l.Offset(514), 8192}},
		{43, l.Offset(514), 4096, Range{}},
	} {
		n := want.count
		if want.zero.Length != 0 {
			n = len(records)
		}
		b := g.Append(records[:n])
		if b.Count != want.count || b.Records.Offset != want.offset || int64(len(b.Records.Data)) != want.length || b.Zero != want.zero {
			t.Fatalf("%+v: %d records, %d bytes at %d, zero %+v", want, b.Count, len(b.Records.Data), b.Records.Offset, b.Zero)
		}
		g.Commit()
		records = records[b.Count:]
	}
	if g.Area() != 1 || g.Records() != 512+43 {
		t.Errorf("area %d, %d records", g.Area(), g.Records())
	}
}

func TestNewLogRefuses(t *testing.T) {
	l := layoutOf(t, MinChunkSize)
	for _, c := range []struct{ memory, block int }{{4095, 512}, {8192, 512}, {0, 512}, {256, 512}, {4096, 8}, {4096, 8192}, {4096, 513}, {4096, 0}} {
		if _, err := NewLog(l, State{}, make([]byte, c.memory), c.block); !errors.Is(err, ErrChunkSize) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

// Appending allocates no memory.
func TestAppendAllocatesNothing(t *testing.T) {
	l := layoutOf(t, MinChunkSize)
	g := newLog(t, storeOf(l, nil), 512)
	records := someRecords(l, 10, origin, 1)
	if n := testing.AllocsPerRun(100, func() { g.Append(records); g.Commit() }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
