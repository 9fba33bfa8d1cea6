package snapshot

import (
	"encoding/binary"
	"io"
)

// Merging moves the data of exceptions into the origin, and then removes their records.
// It goes through the list backwards, as the kernel does, so that the list is valid
// after each step: whoever loads the store later finds the exceptions that are left.

// Last returns the last records of the current area in the order of the list: at most as
// many as fit into the memory. It returns none if the area is empty. Like Remove and Back, it
// needs a log with the memory of a whole area.
func (g *Log) Last(memory []Record) []Record {
	memory = memory[:min(len(memory), g.used)]
	for i := range memory {
		b := g.b[(g.used-len(memory)+i)*recordSize:]
		memory[i] = Record{Old: binary.LittleEndian.Uint64(b), New: binary.LittleEndian.Uint64(b[8:])}
	}
	return memory
}

// Remove makes a batch that removes the last n records of the current area. The data of
// their chunks is in the origin, and the caller has flushed the origin. Zero is unused.
func (g *Log) Remove(n int) Batch {
	from := g.used - n
	removed := g.b[from*recordSize : g.used*recordSize]
	g.backup = append(g.backup[:0], removed...)
	clear(removed)
	g.staged = -n
	return Batch{Records: g.blocks(min(from, g.lost), max(g.used, g.dirty)), Count: n}
}

// Back goes to the area before the current one, which is empty. It returns false if there
// is none: then the store has no exceptions.
func (g *Log) Back(r io.ReaderAt) (bool, error) {
	if g.used > 0 || g.area == 0 {
		return g.used > 0, nil
	}
	if err := readFull(r, g.b, g.layout.Offset(g.layout.Area(g.area-1))); err != nil {
		clear(g.b)
		return false, err
	}
	g.area, g.used = g.area-1, int(g.layout.Records())
	g.dirty, g.lost = g.used, g.used
	return true, nil
}

// Adjacent returns the number of records at the start of a list, at most most, whose chunks are
// contiguous in the origin and in the store.
func Adjacent(records []Record, most int) int {
	n := 1
	for n < min(len(records), most) && records[n].Old == records[n-1].Old+1 && records[n].New == records[n-1].New+1 {
		n++
	}
	return n
}
