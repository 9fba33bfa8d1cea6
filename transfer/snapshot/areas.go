package snapshot

import (
	"fmt"
	"io"
)

// Limits of the areas that are read ahead.
const (
	maxAhead      = 8
	maxAheadBytes = 8 << 20
)

// An areaReader reads the areas of a store in order, several at once. The number of
// reads in flight begins with 1, because most stores of a server are small.
type areaReader struct {
	r      io.ReaderAt
	layout Layout
	areas  uint64 // number of areas in the store
	taken  uint64 // areas that next has returned
	begun  uint64 // areas whose read was begun
	slots  []areaSlot
}

// An areaSlot is one read.
type areaSlot struct {
	b    []byte
	done chan error
}

func newAreaReader(r io.ReaderAt, l Layout, storeSize uint64) *areaReader {
	return &areaReader{
		r: r, layout: l, areas: areasBelow(l, l.StoreChunks(storeSize)),
		slots: make([]areaSlot, min(maxAhead, maxAheadBytes/int(l.ChunkSize()))),
	}
}

// next returns the next area. The bytes are valid until the next call.
func (a *areaReader) next() ([]byte, error) {
	area := a.taken
	if area == a.areas {
		last := a.layout.Records() - 1
		return nil, &RecordError{Area: area - 1, Record: last, Err: ErrNoArea}
	}
	for a.begun < min(a.areas, area+min(area+1, uint64(len(a.slots)))) {
		a.begin()
	}
	slot := &a.slots[area%uint64(len(a.slots))]
	err := <-slot.done
	a.taken++
	if err != nil {
		return nil, fmt.Errorf("area %d of the snapshot store: %w", area, err)
	}
	return slot.b, nil
}

// begin begins to read an area into a slot that is free.
func (a *areaReader) begin() {
	slot := &a.slots[a.begun%uint64(len(a.slots))]
	if slot.b == nil {
		*slot = areaSlot{make([]byte, a.layout.ChunkSize()), make(chan error, 1)}
	}
	at := a.layout.Offset(a.layout.Area(a.begun))
	a.begun++
	go func() { slot.done <- readFull(a.r, slot.b, at) }() // next or stop receives it
}

// stop waits for the reads in flight.
func (a *areaReader) stop() {
	for ; a.taken < a.begun; a.taken++ {
		if err := <-a.slots[a.taken%uint64(len(a.slots))].done; err != nil {
			continue // the area is not used
		}
	}
}
