package mapping

// A RangeWalk yields the pieces of a range in any order, for operations without
// data: a discard over many stripes is one piece for each stripe. At is 0 in
// these pieces. Plan.RangeWalks makes walks that allocate no memory.
type RangeWalk struct {
	plan   *Plan
	ahead  Piece // the next piece, if its length is not 0
	frames []frame
}

// frame is what is left of a range of a space, or of stripes.
type frame struct {
	space      *space   // nil for stripes
	stripes    *stripes // nil for a space
	next       int      // the next stripe
	start, end uint64
}

// RangeWalk makes w the walk through a range of the device, which is not empty
// and lies within the device.
func (p *Plan) RangeWalk(w *RangeWalk, offset, length uint64) {
	w.plan, w.ahead, w.frames = p, Piece{}, w.frames[:0]
	w.push(frame{space: p.top, start: offset, end: offset + length})
}

// RangeWalks returns n walks with the memory that the plan needs. A plan with a snapshot on top
// needs no more than any other.
func (p *Plan) RangeWalks(n int) []RangeWalk {
	walks, each := make([]RangeWalk, n), p.top.frames
	frames := make([]frame, n*each)
	for i := range walks {
		walks[i].frames = frames[i*each : i*each : (i+1)*each]
	}
	return walks
}

func (w *RangeWalk) push(f frame) { w.frames = append(w.frames, f) }

func (w *RangeWalk) pop() { w.frames = w.frames[:len(w.frames)-1] }

// Next returns the next piece; ok is false behind the last.
func (w *RangeWalk) Next() (piece Piece, ok bool) {
	piece, w.ahead = w.ahead, Piece{}
	for len(w.frames) > 0 {
		next, found := w.step()
		switch {
		case !found:
		case piece.Length == 0:
			piece = next
		case piece.continuedBy(&next):
			piece.Length += next.Length
		default:
			w.ahead = next
			return piece, true
		}
	}
	return piece, piece.Length != 0
}

// step takes one extent or stripe from the last frame. It returns a piece if
// nothing is below that.
func (w *RangeWalk) step() (Piece, bool) {
	f := &w.frames[len(w.frames)-1]
	switch {
	case f.stripes != nil:
		w.stripe(f)
		return Piece{}, false
	case f.start == f.end:
		w.pop()
		return Piece{}, false
	}
	e, left := f.space.find(f.start)
	n := min(left, f.end-f.start)
	in := f.start - e.start + e.offset
	if e.kind == kindSnapshot {
		piece, ok, length := w.plan.clear(e.index, in, n)
		f.start += length
		return piece, ok
	}
	f.start += n
	switch e.kind {
	case kindStripes:
		w.push(frame{stripes: &w.plan.stripes[e.index], start: in, end: in + n})
	case kindLayer:
		b := &w.plan.layers[e.index].below
		w.push(frame{space: b.space, start: b.offset + in, end: b.offset + in + n})
	default:
		return e.piece(in, n), true
	}
	return Piece{}, false
}

// stripe replaces a frame of stripes by its next stripe.
func (w *RangeWalk) stripe(f *frame) {
	if f.next == len(f.stripes.branches) {
		w.pop()
		return
	}
	b := &f.stripes.branches[f.next]
	start, end := f.stripes.inStripe(f.start, f.next), f.stripes.inStripe(f.end, f.next)
	f.next++
	if start < end {
		w.push(frame{space: b.space, start: b.offset + start, end: b.offset + end})
	}
}

// inStripe returns how much of a stripe lies before an offset
// (stripe_map_range_sector in drivers/md/dm-stripe.c).
func (s *stripes) inStripe(offset uint64, stripe int) uint64 {
	chunk, within := offset/s.chunk, offset%s.chunk
	count := uint64(len(s.branches))
	row, current := chunk/count*s.chunk, chunk%count
	switch {
	case uint64(stripe) < current:
		return row + s.chunk
	case uint64(stripe) == current:
		return row + within
	default:
		return row
	}
}
