package confine

import (
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"time"
)

const (
	// garbageLimit is how much, in bytes, may be allocated between two
	// collections.
	garbageLimit = 8 << 20
	// garbagePause is how long after the last request the rest is collected.
	garbagePause = 2 * time.Second
)

// Collector collects the garbage of a server of many devices: requests at its
// socket make some, and so do looks at devices that nobody holds. Go's own
// collector is off there because it would run every two minutes, though I/O makes
// no garbage.
type Collector struct {
	mu        sync.Mutex // protects what is below
	collected uint64     // bytes that had been allocated at the last collection
	later     *time.Timer
}

// Start ends Go's own collections.
func (g *Collector) Start() {
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(gcLimit) // for what makes garbage and does not say so
	g.later = time.AfterFunc(garbagePause, g.collectAll)
}

// Collect is called after each request. It collects if enough has been allocated
// since the last time, or else when there have been no requests for a while.
func (g *Collector) Collect() {
	g.later.Reset(garbagePause)
	g.CollectIfNeeded()
}

// CollectIfNeeded collects if enough has been allocated since the last time.
func (g *Collector) CollectIfNeeded() {
	g.mu.Lock()
	enough := allocated()-g.collected >= garbageLimit
	g.mu.Unlock()
	if enough {
		g.collectAll()
	}
}

func (g *Collector) collectAll() {
	g.mu.Lock()
	defer g.mu.Unlock()
	debug.FreeOSMemory()
	g.collected = allocated()
}

// allocated returns how many bytes have been allocated since the process began.
func allocated() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}
