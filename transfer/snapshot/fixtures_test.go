package snapshot

import (
	"encoding/binary"
	"io"
	"math/rand/v2"
	"testing"
)

// layoutOf returns the layout of a valid chunk size.
func layoutOf(t testing.TB, chunkSize uint32) Layout {
	t.Helper()
	l, err := NewLayout(chunkSize)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// sparse is a store that has only the chunks that were written. Its size is that of the
// caller.
type sparse struct {
	l      Layout
	chunks map[uint64][]byte
}

func newSparse(l Layout) *sparse { return &sparse{l, map[uint64][]byte{}} }

// chunk returns the bytes of a chunk for changes.
func (s *sparse) chunk(n uint64) []byte {
	if s.chunks[n] == nil {
		s.chunks[n] = make([]byte, s.l.ChunkSize())
	}
	return s.chunks[n]
}

// ReadAt reads within a chunk.
func (s *sparse) ReadAt(b []byte, at int64) (int, error) {
	n, in := uint64(at)>>s.l.Shift(), at&int64(s.l.ChunkSize()-1)
	if in+int64(len(b)) > int64(s.l.ChunkSize()) {
		return 0, io.ErrShortBuffer
	}
	clear(b)
	if c := s.chunks[n]; c != nil {
		copy(b, c[in:])
	}
	return len(b), nil
}

// put writes record i of the list.
func (s *sparse) put(i uint64, e Record) {
	per := uint64(s.l.Records())
	b := s.chunk(s.l.Area(i / per))[i%per*recordSize:]
	binary.LittleEndian.PutUint64(b, e.Old)
	binary.LittleEndian.PutUint64(b[8:], e.New)
}

// storeOf returns a store with these exceptions.
func storeOf(l Layout, records []Record) *sparse {
	s := newSparse(l)
	Header{Valid: true, Layout: l}.Append(s.chunk(0)[:0])
	for i, e := range records {
		s.put(uint64(i), e)
	}
	return s
}

// someRecords returns n records: random chunks of an origin with the given number of
// chunks, and the data chunks in order.
func someRecords(l Layout, n int, origin uint64, seed uint64) []Record {
	random := rand.New(rand.NewPCG(seed, 1))
	used := map[uint64]bool{}
	records := make([]Record, 0, n)
	for len(records) < n {
		old := random.Uint64N(origin)
		if !used[old] {
			used[old] = true
			records = append(records, Record{old, l.DataChunk(uint64(len(records)))})
		}
	}
	return records
}
