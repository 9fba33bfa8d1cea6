package serving

import (
	"sync"

	"github.com/ublk-loop/ublk-loop/ublk"
)

// busyThreads is the number of queues for the same CPUs that do not share a thread, if their
// threads copy data. If there are more, they share threads with each other: Go ends a process
// with 10,000 threads.
const busyThreads = 16

// Pool says which devices may share threads.
type Pool struct {
	Disks  string // their numbers, in order, each once
	Copies bool   // their threads copy data
}

// Pools holds the threads of several devices.
type Pools struct {
	failed  func(error)
	newRing ublk.NewRing

	mu    sync.Mutex // protects pools
	pools map[Pool]*ublk.Threads
}

// NewPools returns threads that call failed when they fail, and newRing for their rings
// (ublk.Threads.SetNewRing).
func NewPools(failed func(error), newRing ublk.NewRing) *Pools {
	return &Pools{failed: failed, newRing: newRing, pools: map[Pool]*ublk.Threads{}}
}

// Of returns the threads of a pool.
func (p *Pools) Of(pool Pool) *ublk.Threads {
	own := 0
	if pool.Copies {
		own = busyThreads
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pools[pool] == nil {
		p.pools[pool] = ublk.NewThreads(own, p.failed)
		p.pools[pool].SetNewRing(p.newRing)
	}
	return p.pools[pool]
}
