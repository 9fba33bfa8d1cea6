package ublk

import (
	"math/bits"
	"slices"
	"sync"

	"github.com/ublk-loop/ublk-loop/ring"
)

// Threads serve the queues of several devices (Options.Threads). Queues for the same CPUs, of
// the same depth and buffer mode, with as many files and parts, can share a thread and its
// ring. That needs less memory than a thread for each queue, and costs no speed, because such
// threads would take turns on these CPUs. But queues on a thread share its fate: if the
// submission of an operation stalls for one of them, or the thread fails, all of them stop. So
// use one Threads for the devices on one disk.
//
// Each of the first queues has a thread of its own. Later queues share threads, each of which
// has room for as many queues as exist when it is made.
type Threads struct {
	alone   bool // each thread has one queue
	own     int  // threads of a kind that have one queue, before others share
	failed  func(error)
	newRing NewRing

	mu      sync.Mutex // protects what is below, and thread.slots
	threads map[threadKind][]*thread
}

// NewThreads returns threads for several devices. Of the queues for the same CPUs, the first
// own ones do not share threads, or one for each CPU if own is less. This is for queues that
// keep their thread busy with copies. A thread that fails calls failed, and ends. The devices
// that it served then hang until this process ends, because their other queues cannot be taken
// from their threads.
func NewThreads(own int, failed func(error)) *Threads {
	return &Threads{own: own, failed: failed, newRing: ring.New, threads: map[threadKind][]*thread{}}
}

// NewRing makes the ring of a thread, in that thread, as [ring.New] does.
type NewRing = func(ring.Options) (*ring.Ring, error)

// SetNewRing sets what makes the rings; nil leaves [ring.New]. A call must come before the first device.
func (p *Threads) SetNewRing(newRing NewRing) {
	if newRing != nil {
		p.newRing = newRing
	}
}

// ownThreads returns threads for one device. These threads can be killed.
func ownThreads() *Threads {
	return &Threads{alone: true, failed: func(error) {}, newRing: ring.New, threads: map[threadKind][]*thread{}}
}

// take returns a thread for a queue, and a slot of the thread. Of the threads that have room it
// chooses the one with the fewest queues.
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

// used returns the number of used slots of the thread. The caller holds the pool's lock.
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

// nextSlots returns the number of slots of the next thread of a kind: as many as each of the
// CPUs has already. So the unused slots are never more than the used ones, and no CPU is idle
// while another has several threads. The size of a ring is a power of two, and the slots fill
// it.
func (p *Threads) nextSlots(kind threadKind) int {
	if p.alone || len(p.threads[kind]) < p.own {
		return 1
	}
	total := 0
	for _, t := range p.threads[kind] {
		total += len(t.slots)
	}
	each := kind.entries()
	want := max(1, total/max(1, kind.cpus.count()))
	if want == 1 {
		return 1
	}
	entries := min(1<<bits.Len(uint(want*each-1)), maxEntries)
	return max(1, entries/each)
}

// release frees a slot of a thread. It reports whether it was the last used slot. The pool then
// forgets the thread.
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

// drop forgets a thread. No queue gets a slot of it after that.
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
