package confine

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"time"
)

const (
	// garbageLimit is the number of bytes that may be allocated between two collections. With more garbage, what stays is
	// scattered over more pages: 8 MiB take 8 KiB more for each device with a store (TestKernelStoreDensity).
	garbageLimit = 2 << 20
	// garbagePause is the time between the last request and the final collection.
	garbagePause = 2 * time.Second
)

// Collector collects the garbage of a server of many devices. Requests at its socket make
// garbage, and so do checks of devices that are not in use. The server switches Go's own
// collector off, because it would run every two minutes although I/O makes no garbage.
type Collector struct {
	mu        sync.Mutex // protects collected
	collected uint64     // bytes allocated before the last collection
	later     *time.Timer
}

// Start switches Go's own collector off.
func (g *Collector) Start() {
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(gcLimit) // a safety limit, for garbage of code that does not call Collect
	g.later = time.AfterFunc(garbagePause, g.collectAll)
}

// Collect must be called after each request. It collects if enough bytes have been
// allocated since the last collection. When no request has come for garbagePause, all garbage is
// collected, and its memory is given back.
func (g *Collector) Collect() {
	g.later.Reset(garbagePause)
	g.collectIfNeeded()
}

// CollectIfNeeded collects if enough bytes have been allocated since the last collection.
func (g *Collector) CollectIfNeeded() {
	if g.collectIfNeeded() {
		g.later.Reset(garbagePause)
	}
}

// collectIfNeeded reports whether it has collected. The memory stays with the process, because the
// next requests would only ask the kernel for it again.
func (g *Collector) collectIfNeeded() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if allocated()-g.collected < garbageLimit {
		return false
	}
	runtime.GC()
	g.collected = allocated()
	return true
}

// collectAll collects all garbage, and gives its memory back to the kernel.
func (g *Collector) collectAll() {
	g.mu.Lock()
	defer g.mu.Unlock()
	debug.FreeOSMemory()
	g.collected = allocated()
}

// allocated returns the number of bytes that the process has allocated since its start.
func allocated() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}
