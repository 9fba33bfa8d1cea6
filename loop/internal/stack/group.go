package stack

import (
	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ring"
)

// A group is one write for several first writes whose chunks follow each other in the store. First
// writes of one turn usually get such chunks. A file system then allocates blocks once for all of
// them, and the disk has one request. The first member has the operation, and the others have none.
//
// A group is open until its entry is passed to the kernel.
type group struct {
	sqe         *ring.SQE
	published   uint32 // by the ring when the entry was made
	first, last *firstWrite
	members     int
}

// Limits of a group.
const (
	maxGroup      = 16 // writes
	maxGroupBytes = 256 << 10
)

// sendGrouped writes the buffer of a first write, which has a whole chunk, to the store: together
// with the write before it, if that is not in the kernel yet.
func (h *handler) sendGrouped(w *firstWrite) {
	p := h.part(w.req, w.number)
	*p = part{file: h.storeFile(w), offset: h.replacement(w), length: w.chunk}
	g := &h.group
	if !h.mayJoin(g, w) {
		*g = group{h.sendStep(w), h.queue.Ring().Published(), w, w, 1}
		return
	}
	vectors := h.buffers.vectorsOf(g.first)
	if g.members == 1 {
		h.putVector(&vectors[0], g.first)
	}
	h.putVector(&vectors[g.members], w)
	g.members++
	g.sqe.PrepWritev(p.file.File.File, vectors[:g.members], h.part(g.first.req, g.first.number).offset)
	g.last.follower = w
	g.last = w
}

// mayJoin reports whether a write can be a member of the last group.
func (h *handler) mayJoin(g *group, w *firstWrite) bool {
	return g.sqe != nil && g.published == h.queue.Ring().Published() && g.members < maxGroup &&
		uint64(g.members+1)*w.chunk <= maxGroupBytes &&
		(g.sqe.Opcode == ring.IORING_OP_WRITE || g.sqe.Opcode == ring.IORING_OP_WRITEV) &&
		g.last.piece.Snapshot == w.piece.Snapshot && w.record.New == g.last.record.New+1 &&
		g.last.chunk == uint64(h.stack.stores[w.piece.Snapshot].Layout.ChunkSize())
}

func (h *handler) putVector(v *unix.Iovec, w *firstWrite) {
	v.Base = &h.bufferOf(w)[0]
	v.SetLen(int(w.chunk))
}

// groupDone takes the result of a write that can be the first of a group, and goes on with the other
// members. It returns the result of this write alone. After an error or a short result, each
// member is written alone; sent is true then.
func (h *handler) groupDone(w *firstWrite, res int32) (own int32, sent bool) {
	if h.group.first == w {
		h.group = group{}
	}
	next := w.follower
	if next == nil {
		return res, false
	}
	w.follower = nil
	total := int32(w.chunk)
	for f := next; f != nil; f = f.follower {
		total += int32(f.chunk)
	}
	for next != nil {
		f := next
		next, f.follower = f.follower, nil
		if res == total {
			h.memberDone(f)
		} else {
			f.req.Retried()
			h.sendStep(f)
		}
	}
	if res == total {
		return int32(w.chunk), false
	}
	w.req.Retried()
	h.sendStep(w)
	return 0, true
}

// memberDone goes on with a member of a group whose data is in the store.
func (h *handler) memberDone(f *firstWrite) {
	r := &h.requests[f.req.Tag()]
	if h.copied(r, f) {
		h.partEnded(f.req, r, f.number)
	}
}
