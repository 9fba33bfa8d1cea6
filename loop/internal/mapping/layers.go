package mapping

import "github.com/ublk-loop/ublk-loop/transfer"

// A Run is a part of a request that one layer transforms or checks.
type Run struct {
	Layer  int    // number of the layer, in the order of Plan.Layers
	Sector uint64 // number of the first 512 bytes, in the line of the layer
	At     uint64 // in the request
	Length uint64
}

// A LayerWalk yields the runs of one level of a request, from its first byte to
// its last. Level 0 is the first layer on the way down from each byte. A write
// transforms the levels from 0 up, a read from the last down.
type LayerWalk struct {
	plan         *Plan
	level        int
	space        *space
	start        uint64 // in the space
	done, length uint64
	origins      []uint8 // of each sector, as in Piece.Origins
	ahead        Run     // the next run, if its length is not 0
}

// LayerWalk returns the walk through a level of a range of the device, which is
// not empty and lies within the device.
//
// origins says for each sector in how many snapshots the data is from the origin (Piece.Origins).
// It is that of the walk that found the data, because the store can have got the chunk since.
// Without it, no layer below a snapshot counts, as for writes, whose place in a store is not known
// before their pieces.
func (p *Plan) LayerWalk(level int, offset, length uint64, origins []uint8) LayerWalk {
	return LayerWalk{plan: p, level: level, space: p.top, start: offset, length: length, origins: origins}
}

// Next returns the next run; ok is false behind the last. No two runs could be
// one.
func (w *LayerWalk) Next() (run Run, ok bool) {
	run, w.ahead = w.ahead, Run{}
	for w.done < w.length {
		next, found := w.step()
		switch {
		case !found:
		case run.Length == 0:
			run = next
		case run.continuedBy(&next):
			run.Length += next.Length
		default:
			w.ahead = next
			return run, true
		}
	}
	return run, run.Length != 0
}

// continuedBy reports whether the next run is one with this.
func (r *Run) continuedBy(next *Run) bool {
	return r.Layer == next.Layer && r.At+r.Length == next.At && r.Sector+r.Length>>transfer.SectorShift == next.Sector
}

// step returns the run at the current position, if there is one, and goes on to
// where it ends.
func (w *LayerWalk) step() (Run, bool) {
	n, origins := w.length-w.done, uint8(0)
	if w.origins != nil {
		n, origins = alike(w.origins[w.done>>transfer.SectorShift:], n)
	}
	run, found := w.plan.layerAt(w.space, w.level, w.start+w.done, n, origins, w.origins != nil)
	run.At = w.done
	w.done += run.Length
	return run, found
}

// alike returns how many of n bytes have the same number of origins, and this number.
func alike(origins []uint8, n uint64) (length uint64, number uint8) {
	sectors := uint64(1)
	for ; sectors<<transfer.SectorShift < n && origins[sectors] == origins[0]; sectors++ {
	}
	return min(n, sectors<<transfer.SectorShift), origins[0]
}

// layerAt goes down from an offset in a space to a level, with at most n bytes, and through
// a number of snapshots into their origin, and then into a store if stored is set. Without a layer
// at that level it returns only the length.
func (p *Plan) layerAt(s *space, level int, offset, n uint64, origins uint8, stored bool) (Run, bool) {
	for {
		e, left := s.find(offset)
		n = min(n, left)
		in := offset - e.start + e.offset
		switch {
		case e.kind == kindLayer && level == 0:
			return Run{Layer: e.index, Sector: in >> transfer.SectorShift, Length: n}, true
		case e.kind == kindLayer:
			level--
		case e.kind == kindSnapshot && origins > 0:
			origins--
		case e.kind == kindSnapshot && stored && level == 0:
			return p.storeRun(e.index, in, n)
		case e.kind != kindStripes:
			return Run{Length: n}, false
		}
		s, offset, n = p.below(e, in, n)
	}
}
