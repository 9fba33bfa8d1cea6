package snapshot

import "io"

// Load reads all exceptions of a valid store into an index, which was empty, and checks
// them. A wrong record is a *RecordError. The index then has the records before it.
func Load(r io.ReaderAt, l Layout, storeSize uint64, x Index) (State, error) {
	return Scan(r, l, storeSize, newChecker(l, storeSize, x).add)
}

// A checker checks records and adds them to an index.
type checker struct {
	layout Layout
	chunks uint64 // of the store
	index  Index
	seen   chunkSet // chunks of the store that have a record
}

func newChecker(l Layout, storeSize uint64, x Index) *checker {
	chunks := l.StoreChunks(storeSize)
	return &checker{layout: l, chunks: chunks, index: x, seen: newChunkSet(chunks, x.Len())}
}

func (c *checker) add(e Record) error {
	if e.Old >= c.index.Len() {
		return ErrOldRange
	}
	if err := c.layout.checkNew(e.New, c.chunks); err != nil {
		return err
	}
	switch {
	case !c.index.Lookup(e.Old).IsNone():
		return ErrDuplicateOld
	case !c.seen.add(e.New):
		return ErrDuplicateNew
	}
	c.index.Publish(e.Old, e.New)
	return nil
}

// CheckNew returns ErrNewRange or ErrMetadata unless a store of some size can have data in
// a chunk.
func (l Layout) CheckNew(chunk, storeSize uint64) error {
	return l.checkNew(chunk, l.StoreChunks(storeSize))
}

func (l Layout) checkNew(chunk, chunks uint64) error {
	switch {
	case chunk >= chunks:
		return ErrNewRange
	case l.IsMetadata(chunk):
		return ErrMetadata
	}
	return nil
}

// A chunkSet is a set of chunks of a store. A store can be a sparse file of any size with few records
// that are far apart, of which each would need a page of a bitmap. So the memory depends on the number
// of records, which the index bounds.
type chunkSet struct {
	pages bitmap              // if the store is not much larger than the origin
	few   map[uint32]struct{} // otherwise
}

// bitsPerRecord is the largest number of bits in a bitmap for each possible record. A map takes at
// least as much.
const bitsPerRecord = 128

// newChunkSet returns a set of chunks for at most some records.
func newChunkSet(chunks, records uint64) chunkSet {
	if chunks/bitsPerRecord <= records {
		return chunkSet{pages: newBitmap(chunks)}
	}
	return chunkSet{few: make(map[uint32]struct{})}
}

// add adds a chunk, and reports whether it was missing.
func (s *chunkSet) add(chunk uint64) bool {
	if s.few == nil {
		return s.pages.add(chunk)
	}
	before := len(s.few)
	s.few[uint32(chunk)] = struct{}{}
	return len(s.few) > before
}

// A bitmap is a set of numbers. It is in pages that are made when they are needed,
// because a large store can have few records.
type bitmap [][]uint64

const (
	pageBits = 4096
	wordBits = 64
)

func newBitmap(length uint64) bitmap { return make(bitmap, (length+pageBits-1)/pageBits) }

// add adds a number, and reports whether it was missing.
func (m bitmap) add(n uint64) bool {
	page, bit := &m[n/pageBits], n%pageBits
	if *page == nil {
		*page = make([]uint64, pageBits/wordBits)
	}
	word, mask := &(*page)[bit/wordBits], uint64(1)<<(bit%wordBits)
	if *word&mask != 0 {
		return false
	}
	*word |= mask
	return true
}
