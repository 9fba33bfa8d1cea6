package ring

import "sync/atomic"

// completionQueue is the reader's side of the CQ. Completions from head to the
// kernel's tail can be read.
type completionQueue struct {
	kHead, kTail *atomic.Uint32

	cqes []CQE
	mask uint32
	head uint32
}

func (cq *completionQueue) init(m *mappings, p *ioUringParams) {
	cq.kHead = word(m.cqRing, p.CqOff.Head)
	cq.kTail = word(m.cqRing, p.CqOff.Tail)
	cq.mask = p.CqEntries - 1
	cq.cqes = array[CQE](m.cqRing, p.CqOff.Cqes, p.CqEntries)
	cq.head = cq.kHead.Load()
}

// CQReady returns how many completions CQE can return.
//
// Acquire: the kernel has written the completions before it moves the tail past
// them. Call it once a turn: later completions belong to the next turn.
func (r *Ring) CQReady() uint32 {
	return r.cq.kTail.Load() - r.cq.head
}

// CQE returns the i-th ready completion, with i below CQReady. It is valid
// until CQAdvance.
func (r *Ring) CQE(i uint32) *CQE {
	return &r.cq.cqes[(r.cq.head+i)&r.cq.mask]
}

// CQAdvance returns n completions to the kernel.
//
// Release: the caller has read the completions before the kernel sees the head,
// which allows it to overwrite them.
func (r *Ring) CQAdvance(n uint32) {
	r.cq.head += n
	r.cq.kHead.Store(r.cq.head)
}
