package ring

import (
	"runtime"
	"time"
	"unsafe"
)

// waitTimeout is the argument of an enter that waits for a limited time. The
// kernel reads the timespec through an address inside the argument, which Go
// cannot see, so the whole is pinned until unpin.
type waitTimeout struct {
	arg    ioUringGeteventsArg
	ts     kernelTimespec
	pinner runtime.Pinner
}

func newWaitTimeout(d time.Duration) *waitTimeout {
	w := &waitTimeout{ts: kernelTimespec{TvSec: int64(d / time.Second), TvNsec: int64(d % time.Second)}}
	w.pinner.Pin(&w.ts)
	w.arg.Ts = uint64(uintptr(unsafe.Pointer(&w.ts)))
	return w
}

func (w *waitTimeout) unpin() { w.pinner.Unpin() }
