package snapshot

// An Allocator gives out the data chunks of a store in ascending order. A chunk that was
// given out and has no record is given out again only after the store was loaded again.
type Allocator struct {
	layout    Layout
	next      uint64 // the next chunk, if the store has it
	size      uint64 // size of the store in bytes
	transient bool
}

// NewAllocator returns the allocator of a store that was loaded, or of a new store with
// the zero state.
func NewAllocator(l Layout, storeSize uint64, s State) *Allocator {
	return &Allocator{layout: l, next: s.next(), size: storeSize}
}

// NewTransientAllocator returns the allocator of a transient store. It has no metadata,
// and chunk 0 is the first data chunk.
func NewTransientAllocator(l Layout, storeSize uint64) *Allocator {
	return &Allocator{layout: l, size: storeSize, transient: true}
}

// Resize sets the size of the store.
func (a *Allocator) Resize(storeSize uint64) { a.size = storeSize }

// Allocate returns a chunk that has no data yet. It returns ErrFull if the store has none.
//
// The last chunk before an area is given out only if the store has the area. The kernel
// gives it out, and then invalidates the store when it cannot zero the area.
func (a *Allocator) Allocate() (uint64, error) {
	chunk, after := a.next, a.next+1
	if !a.transient && a.layout.isArea(after) {
		after++
	}
	if after > a.layout.StoreChunks(a.size) {
		return 0, ErrFull
	}
	a.next = after
	return chunk, nil
}

// Return makes a chunk the next one to be given out, if it is the last one that was. It reports
// whether it is.
func (a *Allocator) Return(chunk uint64) bool {
	after := chunk + 1
	if !a.transient && a.layout.isArea(after) {
		after++
	}
	if after != a.next {
		return false
	}
	a.next = chunk
	return true
}

// Left returns the number of chunks that can still be given out.
func (a *Allocator) Left() uint64 {
	end := a.layout.StoreChunks(a.size)
	if end <= a.next {
		return 0
	}
	n := end - a.next
	if a.transient {
		return n
	}
	areas := areasBelow(a.layout, end) - areasBelow(a.layout, a.next)
	n -= areas
	if a.layout.isArea(end) {
		n-- // the last chunk before a missing area; no two areas are adjacent, so that it is one of the n
	}
	return n
}

// areasBelow returns the number of areas in the chunks before a chunk.
func areasBelow(l Layout, chunk uint64) uint64 {
	return (chunk + l.stride() - 1 - headerChunks) / l.stride()
}

// Usage is the use of a store in sectors, as in the line of dmsetup status.
type Usage struct {
	Allocated uint64 // all chunks that were given out, with header and areas
	Total     uint64 // size of the store
	Metadata  uint64 // header and areas
}

// Usage returns the use of the store. The number of the area where the next record
// belongs is that of the Log; a transient store ignores it.
func (a *Allocator) Usage(area uint64) Usage {
	sectors := uint64(a.layout.ChunkSize() / sectorSize)
	u := Usage{Allocated: a.next * sectors, Total: a.size / sectorSize}
	if !a.transient {
		u.Metadata = (headerChunks + area + 1) * sectors
	}
	return u
}
