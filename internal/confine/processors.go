package confine

import (
	"math/bits"
	"runtime"
)

// maxProcs limits the number of queues that can return from the kernel at the same time
// without waiting for each other. More queues can be busy only on machines with far more
// CPUs.
var maxProcs = max(64, 4*runtime.NumCPU())

// ReserveProcessors raises GOMAXPROCS, so that this number of queues can wait in the
// kernel or return from it without delaying other goroutines. A queue that waits in the
// kernel keeps one of Go's "processors" until Go notices, which takes up to 20 ms on an
// otherwise idle process. The number grows in steps, because each change stops all
// processors for a moment.
func ReserveProcessors(queues int) {
	wanted := min(1<<bits.Len(uint(queues)), maxProcs)
	if wanted > runtime.GOMAXPROCS(0) {
		runtime.GOMAXPROCS(wanted)
	}
}
