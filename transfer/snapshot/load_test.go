package snapshot

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

const origin = 4096 // chunks of the origins here

// loaded returns the state and index of a store.
func loaded(r io.ReaderAt, l Layout, size uint64) (State, Index, error) {
	x := NewIndex(make([]uint32, origin))
	s, err := Load(r, l, size, x)
	return s, x, err
}

// Stores with each number of records around the areas are read back, in many chunk sizes.
func TestLoad(t *testing.T) {
	for _, size := range []uint32{4 << 10, 8 << 10, 16 << 10} {
		l := layoutOf(t, size)
		per := int(l.Records())
		for _, n := range []int{0, 1, per - 1, per, per + 1, 2 * per, 3*per + 7} {
			records := someRecords(l, n, origin, uint64(n))
			s, x, err := loaded(storeOf(l, records), l, 1<<30)
			if err != nil {
				t.Fatal(err)
			}
			if s.Records(l) != uint64(n) || s.Area != uint64(n/per) || int(s.Used) != n%per {
				t.Errorf("%d records: state %d %d", n, s.Area, s.Used)
			}
			if a := NewAllocator(l, 1<<30, s); a.next != l.DataChunk(uint64(n)) {
				t.Errorf("%d records: the next chunk is %d, want %d", n, a.next, l.DataChunk(uint64(n)))
			}
			sameIndex(t, x, records)
		}
	}
}

func sameIndex(t *testing.T, x Index, records []Record) {
	t.Helper()
	want := make([]uint32, x.Len())
	for _, e := range records {
		want[e.Old] = uint32(e.New) + 1
	}
	if !slices.Equal(x.slots, want) {
		t.Fatal("the index is wrong")
	}
}

// Records may name any data chunk. The next free chunk follows the largest of them.
func TestNextFree(t *testing.T) {
	l := layoutOf(t, MinChunkSize)
	for _, c := range []struct{ last, want uint64 }{{2, 501}, {257, 501}, {513, 514}, {514, 516}, {600, 601}} { // 515 is an area
		s, _, err := loaded(storeOf(l, []Record{{1, 500}, {2, c.last}}), l, 1<<30)
		if err != nil || s.NextFree != c.want {
			t.Errorf("last chunk %d: next is %d, want %d, error %v", c.last, s.NextFree, c.want, err)
		}
	}
}

func TestHostileRecords(t *testing.T) {
	l := layoutOf(t, MinChunkSize)
	const chunks = 1000
	good := someRecords(l, 300, origin-10, 1)
	for name, c := range map[string]struct {
		bad   Record
		cause error
	}{
		"old is the number of chunks":   {Record{origin, 700}, ErrOldRange},
		"old with more than 32 bits":    {Record{1 << 32, 700}, ErrOldRange},
		"old is the largest number":     {Record{1<<64 - 1, 700}, ErrOldRange},
		"new is the number of chunks":   {Record{origin - 1, chunks}, ErrNewRange},
		"new with more than 32 bits":    {Record{origin - 1, 1<<32 + 700}, ErrNewRange},
		"new is the largest number":     {Record{origin - 1, 1<<64 - 1}, ErrNewRange},
		"new is an area":                {Record{origin - 1, 258}, ErrMetadata},
		"new is the first area":         {Record{origin - 1, 1}, ErrMetadata},
		"old of the first record again": {Record{good[0].Old, 700}, ErrDuplicateOld},
		"new of the first record again": {Record{origin - 1, 2}, ErrDuplicateNew},
	} {
		records := append(slices.Clone(good), c.bad)
		_, x, err := loaded(storeOf(l, records), l, chunks*MinChunkSize)
		var e *RecordError
		if !errors.As(err, &e) || !errors.Is(err, c.cause) || !errors.Is(err, syscall.EINVAL) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if want := (RecordError{1, 44, c.bad.Old, c.bad.New, c.cause}); *e != want {
			t.Errorf("%s: %+v, want %+v", name, *e, want)
		}
		sameIndex(t, x, good)
	}
}

// A full area without a next one is refused; the kernel cannot read such a store either.
func TestMissingArea(t *testing.T) {
	l := layoutOf(t, MinChunkSize)
	store := storeOf(l, someRecords(l, 256, origin, 1))
	if _, _, err := loaded(store, l, 259*MinChunkSize); err != nil {
		t.Fatal(err)
	}
	_, _, err := loaded(store, l, 258*MinChunkSize)
	var e *RecordError
	if !errors.As(err, &e) || !errors.Is(err, ErrNoArea) || e.Area != 0 || e.Record != 255 {
		t.Fatal(err)
	}
	if _, _, err := loaded(store, l, 2*MinChunkSize); !errors.Is(err, ErrTooSmall) {
		t.Fatal(err)
	}
}

// A record that cannot be read is an error with its area; no read goes on after Load.
func TestUnreadableArea(t *testing.T) {
	l := layoutOf(t, MinChunkSize)
	store := &failing{sparse: storeOf(l, someRecords(l, 3000, origin, 1)), at: l.Offset(l.Area(7))}
	_, _, err := loaded(store, l, 1<<30)
	if !errors.Is(err, syscall.EIO) || err.Error() != "area 7 of the snapshot store: input/output error" {
		t.Error(err)
	}
	if _, err := Scan(storeOf(l, nil), l, 1<<40, func(Record) error { return nil }); err != nil {
		t.Error(err)
	}
}

type failing struct {
	*sparse
	at int64
}

func (f *failing) ReadAt(b []byte, at int64) (int, error) {
	if at == f.at {
		return 0, syscall.EIO
	}
	return f.sparse.ReadAt(b, at)
}

// Load waits for the reads that it has begun, because the caller may then close the store.
func TestNoReadAfterLoad(t *testing.T) {
	l := layoutOf(t, MinChunkSize)
	store := &slow{sparse: storeOf(l, someRecords(l, 2000, origin, 1))}
	if _, _, err := loaded(store, l, 1<<30); err != nil || store.active.Load() != 0 {
		t.Errorf("%d reads go on, error %v", store.active.Load(), err)
	}
}

// slow is a store on a disk that needs 100 microseconds for each read.
type slow struct {
	*sparse
	active atomic.Int64 // reads in flight
}

func (s *slow) ReadAt(b []byte, at int64) (int, error) {
	s.active.Add(1)
	defer s.active.Add(-1)
	<-time.After(100 * time.Microsecond)
	return s.sparse.ReadAt(b, at)
}

// Loading a million exceptions takes at most 2 s, also from a disk.
func BenchmarkLoadMillion(b *testing.B) {
	for _, size := range []uint32{4 << 10, 64 << 10} {
		l := layoutOf(b, size)
		store := &slow{sparse: storeOf(l, someRecords(l, 1_000_000, 1<<24, 1))}
		b.Run(fmt.Sprintf("%dK", size>>10), func(b *testing.B) {
			for b.Loop() {
				x := NewIndex(make([]uint32, 1<<24))
				if s, err := Load(store, l, 1<<41, x); err != nil || s.Records(l) != 1_000_000 {
					b.Fatalf("%d records, error %v", s.Records(l), err)
				}
			}
		})
	}
}

func BenchmarkLookup(b *testing.B) {
	x := NewIndex(make([]uint32, 1<<20))
	var sum uint64
	for i := uint64(0); b.Loop(); i++ {
		sum += x.Lookup(i & (1<<20 - 1)).Chunk()
	}
}

// The set of chunks for the check of records is bounded by the origin, not by the store, which can be
// a sparse file of any size with records that are far apart.
func TestMemoryOfLoad(t *testing.T) {
	const records = 1 << 17
	l := layoutOf(t, MinChunkSize)
	for name, storeChunks := range map[string]uint64{"store of the origin's size": 2 * records, "8 TiB": MaxChunks} {
		list := make([]Record, records)
		for i := range list {
			list[i] = Record{uint64(i), uint64(i) * (storeChunks / records) &^ 3}
			for list[i].New == 0 || l.IsMetadata(list[i].New) || i > 0 && list[i].New <= list[i-1].New {
				list[i].New++
			}
		}
		store := storeOf(l, list)
		x := NewIndex(make([]uint32, records))
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := Load(store, l, storeChunks<<l.Shift(), x)
		runtime.ReadMemStats(&after)
		if err != nil {
			t.Fatal(err)
		}
		used := after.TotalAlloc - before.TotalAlloc
		t.Logf("%s: %d KiB for an index of %d KiB", name, used>>10, 4*records>>10)
		if limit := uint64(10 * 4 * records); used > limit {
			t.Errorf("%s: %d bytes are allocated, want at most %d", name, used, limit)
		}
		list[records-1].New = list[5].New
		store.put(records-1, list[records-1])
		if _, err := Load(store, l, storeChunks<<l.Shift(), NewIndex(make([]uint32, records))); !errors.Is(err, ErrDuplicateNew) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}
