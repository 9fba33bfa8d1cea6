package ring

import (
	"runtime"
	"time"
	"unsafe"
)

// waitTimeout is the argument of an enter with a deadline. The kernel reads the
// timespec through an address in the argument. Go does not see this address as
// a pointer, so the timespec is pinned until unpin.
type waitTimeout struct {
	arg      ioUringGeteventsArg
	ts       kernelTimespec
	deadline time.Time
	pinner   runtime.Pinner
}

func newWaitTimeout(d time.Duration) *waitTimeout {
	w := &waitTimeout{deadline: time.Now().Add(d)}
	w.pinner.Pin(&w.ts)
	w.arg.Ts = uint64(uintptr(unsafe.Pointer(&w.ts)))
	return w
}

// update sets the remaining time, because an interrupted wait has used up part
// of it.
func (w *waitTimeout) update() {
	left := max(0, time.Until(w.deadline))
	w.ts = kernelTimespec{TvSec: int64(left / time.Second), TvNsec: int64(left % time.Second)}
}

// isOver reports whether the deadline has passed; of no timeout (nil) it never
// does.
func (w *waitTimeout) isOver() bool { return w != nil && !time.Now().Before(w.deadline) }

func (w *waitTimeout) unpin() { w.pinner.Unpin() }
