package mapping

import (
	"sync/atomic"

	"github.com/ublk-loop/ublk-loop/transfer"
	"github.com/ublk-loop/ublk-loop/transfer/snapshot"
)

// A Store is what a plan needs to know of the store of a snapshot.
type Store struct {
	Index  snapshot.Index
	Layout snapshot.Layout
	State  *atomic.Uint32 // one of the states below
	Origin uint64         // size of the origin
	Block  uint64         // what a write to the store is a multiple of, in bytes; 0 is any number
}

// States of a store.
const (
	Usable   uint32 = iota
	Overflow        // full: writes fail
	Invalid         // all requests fail
)

// changes is a snapshot: an origin with the exceptions of a store.
type changes struct {
	Store
	origin        branch
	device        int // of the store
	cipher        int // as in Piece.Cipher
	discardZeroes bool
}

// Chunk returns the first byte of the chunk of a first write, and the number of its bytes
// that the origin has. The store gets more of the last chunk, if the origin ends within a block of the store.
func (s *Store) Chunk(chunk uint64) (start, ofOrigin, ofStore uint64) {
	start = chunk << s.Layout.Shift()
	ofOrigin = min(uint64(s.Layout.ChunkSize()), s.Origin-start)
	block := max(s.Block, 1)
	return start, ofOrigin, (ofOrigin + block - 1) / block * block
}

// run returns how many bytes from an offset on, of at most n, are in one place, given the slot
// of the first chunk: in the origin, or in adjacent chunks of the store.
func (c *changes) run(slot snapshot.Slot, offset, n uint64) uint64 {
	shift, replaced := c.Layout.Shift(), slot.Replaced()
	chunk := offset >> shift
	run := (chunk+1)<<shift - offset
	for ; run < n; run += 1 << shift {
		chunk++
		slot++
		if found := c.Index.Lookup(chunk); found.Replaced() != replaced || replaced && found != slot {
			break
		}
	}
	return min(run, n)
}

// change returns the piece of a snapshot at an offset; ok is false for a part that is in the
// origin, of which the piece has only the length.
func (p *Plan) change(index int, offset, n uint64, write bool) (piece Piece, ok bool) {
	c := &p.changes[index]
	switch state := c.State.Load(); {
	case state == Invalid, state == Overflow && write:
		return Piece{Kind: Error, Length: n}, true
	}
	within := offset & uint64(c.Layout.ChunkSize()-1)
	slot := c.Index.Lookup(offset >> c.Layout.Shift())
	if write && !slot.Writable() {
		return Piece{Kind: FirstWrite, Snapshot: index, Offset: offset, Length: min(n, uint64(c.Layout.ChunkSize())-within), Cipher: c.cipher}, true
	}
	run := c.run(slot, offset, n)
	if slot.Replaced() {
		return Piece{Kind: Device, Device: c.device, Offset: slot.Chunk()<<c.Layout.Shift() + within, Length: run, Cipher: c.cipher}, true
	}
	return Piece{Length: run}, false
}

// storeRun returns the run of the encryption of a store at an offset of a snapshot, whose data of at
// most n bytes is in the store. Without an encryption it returns only the length.
func (p *Plan) storeRun(index int, offset, n uint64) (Run, bool) {
	c := &p.changes[index]
	slot := c.Index.Lookup(offset >> c.Layout.Shift())
	run := c.run(slot, offset, n)
	if c.cipher == 0 || !slot.Replaced() {
		return Run{Length: run}, false
	}
	within := offset & uint64(c.Layout.ChunkSize()-1)
	return Run{Layer: c.cipher - 1, Sector: (slot.Chunk()<<c.Layout.Shift() + within) >> transfer.SectorShift, Length: run}, true
}

// clear returns the piece of a discard at an offset of a snapshot, and the number of bytes
// that it is about. Only whole chunks with an exception are a piece.
func (p *Plan) clear(index int, offset, n uint64) (piece Piece, ok bool, length uint64) {
	c := &p.changes[index]
	size := uint64(c.Layout.ChunkSize())
	if c.State.Load() != Usable {
		return Piece{Kind: Error, Length: n}, true, n
	}
	if !c.discardZeroes {
		return Piece{}, false, n
	}
	if part := offset & (size - 1); part != 0 {
		return Piece{}, false, min(n, size-part)
	}
	whole := n &^ (size - 1)
	if whole == 0 {
		return Piece{}, false, n
	}
	slot := c.Index.Lookup(offset >> c.Layout.Shift())
	run := c.run(slot, offset, whole)
	if !slot.Writable() { // a chunk that is merging keeps its data
		return Piece{}, false, run
	}
	return Piece{Kind: Clear, Device: c.device, Offset: slot.Chunk() << c.Layout.Shift(), Length: run}, true, run
}

// StoreDevice returns the number of the device that has the store of a snapshot.
func (p *Plan) StoreDevice(index int) int { return p.changes[index].device }
