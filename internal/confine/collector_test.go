package confine

import (
	"math"
	"runtime/debug"
	"testing"
	"time"
)

// Garbage is collected once there is enough of it.
func TestCollector(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(100))
	defer debug.SetMemoryLimit(math.MaxInt64)
	g := &Collector{}
	g.Start()
	defer g.later.Stop()
	g.later.Reset(time.Hour)
	if limit := debug.SetMemoryLimit(-1); limit != gcLimit {
		t.Errorf("the limit is %d", limit)
	}
	g.collectAll()
	was := g.collected
	g.CollectIfNeeded()
	if g.collected != was {
		t.Error("collected though there is little")
	}
	for range garbageLimit >> 20 {
		blackHole = make([]byte, 1<<20)
	}
	g.CollectIfNeeded()
	if g.collected == was {
		t.Error("not collected though there is enough")
	}
}

var blackHole []byte
