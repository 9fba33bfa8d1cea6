package backing

import (
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Failures says which requests of a device must fail although the kernel has carried them out. When the page cache
// loses data of a file, the kernel reports that once for each open file: to the first flush, or write that includes one
// (file_check_and_advance_wb_err in mm/filemap.c). All queues share the open file, so that this request can be another
// one than the flush that covers the data. The zero value is ready for use.
type Failures struct {
	// state has the number of failures in the upper half, and below it the errno of the last one. The lowest bit is unreported.
	state atomic.Uint64
}

const (
	unreported   = 1 // no flush that was sent after the last failure has ended
	errnoShift   = 1
	failureShift = 32
)

// Look returns what AfterFlush and AfterFUA need. The handler calls it before it sends the first operation of the request.
func (f *Failures) Look() uint64 { return f.state.Load() }

// Add makes the next flush fail, because a request that is not a flush has failed, maybe with the error of other data.
func (f *Failures) Add(errno int32) { f.add(errno, unreported) }

// AddReturned counts a failure that a flush is about to return, and fails only the other requests in flight.
func (f *Failures) AddReturned(errno int32) { f.add(errno, 0) }

func (f *Failures) add(errno int32, more uint64) {
	for {
		old := f.state.Load()
		number := old>>failureShift + 1
		if f.state.CompareAndSwap(old, number<<failureShift|uint64(-errno)<<errnoShift|old&unreported|more) {
			return
		}
	}
}

// AddFUA is Add for a write with FUA to b, which is one operation, with the flush. It leaves out errors that cannot be
// those of other data: a direct write to a disk includes no flush of the page cache, and a direct write to a file
// that finds the file system full has failed before the flush.
func (f *Failures) AddFUA(b *Backing, errno int32) {
	if b.FUAFlushes() && !(b.Direct && (errno == -int32(unix.ENOSPC) || errno == -int32(unix.EDQUOT))) {
		f.Add(errno)
	}
}

// FUAFlushes reports whether a write with FUA includes a flush of the page cache.
func (b *Backing) FUAFlushes() bool { return !b.IsDisk || !b.Direct }

// AfterFlush returns the result of a flush whose operations have the result res. It fails after a failure of Add, and
// beside another failure.
func (f *Failures) AfterFlush(seen uint64, res int32) int32 {
	if seen&unreported != 0 {
		f.state.CompareAndSwap(seen, seen&^unreported) // a newer failure remains
	}
	switch {
	case res < 0:
		f.AddReturned(res)
		return res
	case seen&unreported != 0:
		return errnoOf(seen)
	}
	return f.AfterFUA(seen)
}

// AfterFUA returns the result of a request with FUA whose operations have succeeded. It fails beside another failure, which
// can be that of its data.
func (f *Failures) AfterFUA(seen uint64) int32 {
	now := f.state.Load()
	if now>>failureShift == seen>>failureShift {
		return 0
	}
	return errnoOf(now)
}

func errnoOf(state uint64) int32 { return -int32(uint32(state) >> errnoShift) }
