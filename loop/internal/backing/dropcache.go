package backing

import (
	"iter"

	"golang.org/x/sys/unix"
)

// While the page cache has a single page of a file, each direct write looks for
// its own there, before and after (kiocb_invalidate_pages and its like in
// mm/filemap.c): of random writes of 4 KiB to an ext4 that takes a tenth of the
// time. An image that has just been made is cached from end to end.

const (
	// dropStep is the smallest part of a file that one call drops, in bytes. If
	// all of it is cached, in pages of 4 KiB, the call takes 50 ms.
	dropStep = 1 << 30
	// dropSteps is the maximum number of calls for a file. A call takes time in
	// proportion to the pages that are cached, which memory limits. The size of a
	// sparse file limits nothing.
	dropSteps = 1024
)

// DropCache gives back what the page cache has of the file or disk, unless a function
// says to stop: a device with direct I/O has no use for it. What is still to be written
// stays, and so does what a device only reads.
func (b *Backing) DropCache(stop func() bool) {
	if !b.Direct || b.ReadOnly {
		return
	}
	for at, length := range dropParts(b.Offset + b.Size) {
		if stop() {
			return
		}
		// Advice: a file system that does not take it keeps its pages.
		_ = unix.Fadvise(b.FD, at, length, unix.FADV_DONTNEED)
	}
}

// dropParts yields the parts of a file to drop, by offset and length, for a
// device that ends after size bytes. The last part has length 0: it goes to the
// end of the file, however much of that is the device's.
func dropParts(size uint64) iter.Seq2[int64, int64] {
	step := max(dropStep, (size-1)/dropSteps+1)
	return func(yield func(int64, int64) bool) {
		for at := uint64(0); ; at += step {
			if size-at <= step {
				yield(int64(at), 0)
				return
			}
			if !yield(int64(at), int64(step)) {
				return
			}
		}
	}
}
