package confine

import (
	"math/bits"
	"runtime"
)

// maxProcs is how many queues may be on their way back from the kernel without
// one waiting for another. Far more are at work only where there are far more
// CPUs.
var maxProcs = max(64, 4*runtime.NumCPU())

// ReserveProcessors lets that many queues be in the kernel, or come back from it, without
// anything else that waits for one of Go's "processors". A queue that waits in the
// kernel keeps its own until Go notices, which takes up to 20 ms where nothing else
// happens. The number grows in steps: a change stops all of them for a moment.
func ReserveProcessors(queues int) {
	wanted := min(1<<bits.Len(uint(queues)), maxProcs)
	if wanted > runtime.GOMAXPROCS(0) {
		runtime.GOMAXPROCS(wanted)
	}
}
