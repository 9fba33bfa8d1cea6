package stack

import (
	"github.com/ublk-loop/ublk-loop/loop/internal/mapping"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// A check is that of a read, which can use all parts of its request, or that of a copy for a first write,
// which can use the part of the write. This file has what differs between them.

// covered says which sectors of what was read come from the origin of a snapshot, for snapshots with
// layers there. The index of the store cannot tell: while the old data of a chunk is read, the store
// can get the chunk.
type covered struct {
	requestOrigins    []uint8 // Piece.Origins of each sector, for each tag; nil without such snapshots
	sectorsPerRequest int
	bufferOrigins     []uint8 // the same for the buffers of copier
}

// makeCovered makes the memory. The buffers of copier must exist.
func (h *handler) makeCovered(q *ublk.Queue) {
	if !h.stack.plan.Covered() {
		return
	}
	h.sectorsPerRequest = q.MaxIOBytes() >> sectorShift
	h.requestOrigins = make([]uint8, h.sectorsPerRequest*q.Depth())
	if h.buffers != nil {
		h.bufferOrigins = make([]uint8, len(h.buffers.memory)>>sectorShift)
	}
}

// originsOf returns the origins of the sectors of a read, or nil.
func (h *handler) originsOf(req *ublk.Request) []uint8 {
	if h.requestOrigins == nil {
		return nil
	}
	return h.requestOrigins[req.Tag()*h.sectorsPerRequest:][:h.sectorsPerRequest]
}

// note records where a piece of a read comes from.
func note(origins []uint8, at uint64, piece *mapping.Piece) {
	sectors := origins[at>>sectorShift:][:piece.Length>>sectorShift]
	for i := range sectors {
		sectors[i] = piece.Origins
	}
}

// originsOfCopy returns the origins of the sectors of a first write's buffer.
func (h *handler) originsOfCopy(w *firstWrite) []uint8 {
	sectors := h.buffers.size >> sectorShift
	return h.bufferOrigins[(w.buffer-1)*sectors:][:sectors]
}

// checkCopy begins to check what a first write has read from its origin. It reports whether the
// part has ended, with an error.
func (c *checker) checkCopy(w *firstWrite) bool {
	w.step = stepCheck
	number := c.numberOfCopy(w.req, w.number)
	k := &c.checks[number]
	data := c.bufferOf(w)[w.readFrom:][:w.readLength]
	k.start(w.req, w, data, c.stack.plan.Origin(w.piece.Snapshot).Levels())
	// Until this returns, the part is in flight, so its request cannot end.
	w.beginning, w.ended, w.flying = true, false, false
	c.advance(number)
	w.beginning = false
	c.goOn()
	return w.ended
}

// originLayers returns the walk through a level of the origin of a first write.
func (c *checker) originLayers(w *firstWrite, level int) mapping.LayerWalk {
	origins := c.originsOfCopy(w)[w.readFrom>>sectorShift:]
	return c.stack.plan.Origin(w.piece.Snapshot).LayerWalk(level, w.start+w.readFrom, w.readLength, origins)
}

// copyChecked goes on with a first write.
func (c *checker) copyChecked(k *check) {
	w, r := k.write, &c.requests[k.req.Tag()]
	var ended bool
	if k.errno != 0 {
		ended = c.writeFailed(r, w, k.errno)
	} else {
		ended = c.writeCopy(r, w)
	}
	switch {
	case w.beginning:
		w.ended = ended
	case ended:
		c.partEnded(w.req, r, w.number)
	}
}

// numberOf returns the number of a check.
func (c *checker) numberOf(k *check) int {
	if k.write == nil {
		return k.req.Tag()
	}
	return c.numberOfCopy(k.req, k.write.number)
}

// numberOfCopy returns the number of the check of a first write.
func (c *checker) numberOfCopy(req *ublk.Request, number int) int {
	return len(c.requests) + c.partIndex(req, number)
}

// isReading reports whether operations of a check are in flight.
func (c *checker) isReading(k *check) bool {
	if k.write != nil {
		return k.write.flying
	}
	return c.requests[k.req.Tag()].flying > 0
}

// canRead reports whether a check has a part for an operation.
func (c *checker) canRead(k *check) bool {
	if k.write != nil {
		return !k.write.flying
	}
	return c.mayTake(&c.requests[k.req.Tag()])
}

// takePart returns a part for an operation of a check.
func (c *checker) takePart(k *check) (int, *part) {
	if w := k.write; w != nil {
		w.flying = true
		return w.number, c.part(w.req, w.number)
	}
	return c.take(k.req, &c.requests[k.req.Tag()])
}

// checkOf returns the check of a part.
func (c *checker) checkOf(req *ublk.Request, number int) *check {
	if c.requests[req.Tag()].stage == stageCheck {
		return &c.checks[req.Tag()]
	}
	return &c.checks[c.numberOfCopy(req, number)]
}

// copyReadDone handles the end of an operation of a first write's check.
func (c *checker) copyReadDone(w *firstWrite, errno int32) {
	k := c.checkOf(w.req, w.number)
	w.flying = false
	k.fail(errno)
	c.readEnded(k)
}
