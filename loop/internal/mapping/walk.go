package mapping

// Kind says what a piece is.
type Kind uint8

// Kinds of pieces.
const (
	Device     Kind = iota // a part of a file or disk
	Zero                   // reads are zeroes, writes and discards do nothing
	Error                  // EIO
	FirstWrite             // a write to a chunk of a snapshot without an exception, or that is merging
	Clear                  // a discard of chunks of a store, which then have zeroes
)

// A Piece is a part of a request that goes to one place.
type Piece struct {
	Kind     Kind
	Device   int    // number of the device, for Device and Clear
	Snapshot int    // number of the snapshot, for FirstWrite
	Offset   uint64 // in the device, or in the snapshot
	At       uint64 // in the request
	Length   uint64
	// Cipher is the number of the layer that encrypts the store with the piece, plus 1, for Device
	// and FirstWrite. The layer counts sectors from the start of the device. 0 is no encryption.
	Cipher int
	// Origins is the number of snapshots on the way whose origin has the piece.
	Origins uint8
}

// continuedBy reports whether the next piece is one with this. At is not
// compared: the pieces of a walk follow each other.
func (p *Piece) continuedBy(next *Piece) bool {
	if p.Kind != next.Kind || p.Device != next.Device || p.Kind == FirstWrite || p.Origins != next.Origins {
		return false
	}
	return p.Kind == Zero || p.Kind == Error || p.Offset+p.Length == next.Offset
}

// A Walk yields the pieces of a range of the device, from its first byte to its
// last. No two pieces could be one.
type Walk struct {
	plan         *Plan
	from         branch // what the range is a part of
	write        bool
	start        uint64
	done, length uint64
	ahead        Piece // the next piece, if its length is not 0
}

// Walk returns the walk for a read of a range of the device, which is not empty and
// lies within the device.
func (p *Plan) Walk(offset, length uint64) Walk {
	return Walk{plan: p, from: branch{space: p.top}, start: offset, length: length}
}

// WriteWalk is Walk for a write.
func (p *Plan) WriteWalk(offset, length uint64) Walk {
	return Walk{plan: p, from: branch{space: p.top}, start: offset, length: length, write: true}
}

// Next returns the next piece; ok is false behind the last.
func (w *Walk) Next() (piece Piece, ok bool) {
	if w.ahead.Length == 0 {
		if w.done == w.length {
			return Piece{}, false
		}
		w.ahead = w.step()
	}
	piece, w.ahead = w.ahead, Piece{}
	for w.done < w.length {
		next := w.step()
		if !piece.continuedBy(&next) {
			w.ahead = next
			break
		}
		piece.Length += next.Length
	}
	return piece, true
}

// step returns what is at the current position, up to where that ends.
func (w *Walk) step() Piece {
	piece := w.plan.at(w.from.space, w.from.offset+w.start+w.done, w.length-w.done, w.write)
	piece.At = w.done
	w.done += piece.Length
	return piece
}

// at goes down from an offset of a space to what is there, of at most n bytes.
func (p *Plan) at(s *space, offset, n uint64, write bool) Piece {
	for origins := uint8(0); ; {
		e, left := s.find(offset)
		n = min(n, left)
		in := offset - e.start + e.offset
		switch e.kind {
		case kindStripes, kindLayer:
			s, offset, n = p.below(e, in, n)
		case kindSnapshot:
			piece, ok := p.change(e.index, in, n, write)
			if ok {
				piece.Origins = origins
				return piece
			}
			b := &p.changes[e.index].origin
			n, s, offset = piece.Length, b.space, b.offset+in
			origins++
		default:
			piece := e.piece(in, n)
			piece.Origins = origins
			return piece
		}
	}
}

// below returns what is below a place in an extent of stripes, a layer or a snapshot: a space, the offset
// in it, and how many of n bytes are there.
func (p *Plan) below(e *extent, in, n uint64) (s *space, offset, there uint64) {
	var b *branch
	switch e.kind {
	case kindStripes:
		b, offset, left := p.stripes[e.index].place(in)
		return b.space, offset, min(n, left)
	case kindSnapshot:
		b = &p.changes[e.index].origin
	default:
		b = &p.layers[e.index].below
	}
	return b.space, b.offset + in, n
}

// piece returns a part of an extent with nothing below it.
func (e *extent) piece(in, n uint64) Piece {
	switch e.kind {
	case kindZero:
		return Piece{Kind: Zero, Length: n}
	case kindError:
		return Piece{Kind: Error, Length: n}
	default:
		return Piece{Kind: Device, Device: e.index, Offset: in, Length: n}
	}
}
