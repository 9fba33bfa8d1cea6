package main

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

// garbage collects what requests at a server's socket leave, and looks at devices
// that nobody holds. Go's own collector is off there: it would run every two
// minutes though I/O makes no garbage.
type garbage struct {
	mu        sync.Mutex // protects what is below
	collected uint64     // bytes that had been allocated at the last collection
	later     *time.Timer
}

// start ends Go's own collections.
func (g *garbage) start() {
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(gcLimit) // for what makes garbage and does not say so
	g.later = time.AfterFunc(garbagePause, g.collectAll)
}

// collect collects where enough has been allocated since the last time, or else
// when there have been no requests for a while.
func (g *garbage) collect() {
	g.later.Reset(garbagePause)
	g.look()
}

// look collects where enough has been allocated since the last time.
func (g *garbage) look() {
	g.mu.Lock()
	enough := allocated()-g.collected >= garbageLimit
	g.mu.Unlock()
	if enough {
		g.collectAll()
	}
}

func (g *garbage) collectAll() {
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
