package ublk

import (
	"math/bits"
	"slices"
	"sync"
)

// Threads serve the queues of several devices (Options.Threads): some queues
// for the same CPUs, of the same depth and buffer mode, share a thread and its
// ring. That costs less memory than a thread for each queue, and no speed: such
// threads would take turns on these CPUs. What is shared too is what becomes of
// a queue whose operations stall while they are submitted, and the end of a
// thread that fails: so a good choice is one Threads for the devices on one
// disk.
//
// The first queues have a thread each, later ones share threads that have room
// for as many as are there.
type Threads struct {
	alone  bool // one queue a thread
	failed func(error)

	mu      sync.Mutex // protects what is below, and thread.slots
	threads map[threadKind][]*thread
}

// NewThreads returns threads for several devices. failed is called, by a thread
// that ends with it, when one fails: the devices that it served then hang until
// this process ends, since the others cannot be taken from theirs.
func NewThreads(failed func(error)) *Threads {
	return &Threads{failed: failed, threads: map[threadKind][]*thread{}}
}

// ownThreads returns threads for one device, which can be killed.
func ownThreads() *Threads {
	return &Threads{alone: true, failed: func(error) {}, threads: map[threadKind][]*thread{}}
}

// take returns a thread for a queue and the queue's slot there, from the thread
// with the fewest queues of those that have room.
func (p *Threads) take(kind threadKind) (*thread, uint16, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var best *thread
	for _, t := range p.threads[kind] {
		if used := t.used(); used < len(t.slots) && (best == nil || used < best.used()) {
			best = t
		}
	}
	if best == nil {
		var err error
		if best, err = newThread(p, kind, p.nextSlots(kind)); err != nil {
			return nil, 0, err
		}
		p.threads[kind] = append(p.threads[kind], best)
		go best.run()
	}
	slot := slices.Index(best.slots, false)
	best.slots[slot] = true
	return best, uint16(slot), nil
}

// used returns how many of the thread's slots are taken. The caller holds the
// pool's lock.
func (t *thread) used() int {
	n := 0
	for _, taken := range t.slots {
		if taken {
			n++
		}
	}
	return n
}

// maxEntries is the size of the largest ring that several queues share.
const maxEntries = 4096

// nextSlots returns how many queues the next thread of a kind has room for: as
// many as each of the CPUs has already, so that what is there for queues to come
// is no more than what others use, and no CPU has nothing to do. A ring's size
// is a power of two, which they fill.
func (p *Threads) nextSlots(kind threadKind) int {
	if p.alone {
		return 1
	}
	total := 0
	for _, t := range p.threads[kind] {
		total += len(t.slots)
	}
	each := entriesOf(kind.depth)
	want := max(1, total/max(1, kind.cpus.count()))
	if want == 1 {
		return 1
	}
	entries := min(1<<bits.Len(uint(want*each-1)), maxEntries)
	return max(1, entries/each)
}

// release gives a thread's slot back, and reports whether it was the last: then
// nobody gets another.
func (p *Threads) release(t *thread, slot uint16) (last bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	t.slots[slot] = false
	if t.used() > 0 {
		return false
	}
	p.forget(t)
	return true
}

// drop forgets a thread: nobody gets a slot of it from now on.
func (p *Threads) drop(t *thread) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.forget(t)
}

func (p *Threads) forget(t *thread) {
	list := p.threads[t.kind]
	if i := slices.Index(list, t); i >= 0 {
		list = slices.Delete(list, i, i+1)
	}
	if p.threads[t.kind] = list; len(list) == 0 {
		delete(p.threads, t.kind)
	}
}
