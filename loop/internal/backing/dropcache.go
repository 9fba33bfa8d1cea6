package backing

import (
	"iter"

	"golang.org/x/sys/unix"
)

// While the page cache has a single page of a file, each direct write looks for its own
// pages there, before and after the write (kiocb_invalidate_pages and similar functions
// in mm/filemap.c). That takes a tenth of the time of random writes of 4 KiB to an ext4.
// An image that has just been made is completely cached.

const (
	// dropStep is the minimum size of the part of a file that one call drops, in bytes.
	// If the part is completely cached, in pages of 4 KiB, the call takes 50 ms.
	dropStep = 1 << 30
	// dropSteps is the maximum number of calls for a file. The time of a call depends on
	// the number of cached pages, which memory limits. The size of a sparse file has no
	// such limit.
	dropSteps = 1024
)

// DropCache returns a function that drops the pages of the file or disk from the page
// cache, until stop returns true. A device with direct I/O does not use them. Dirty pages
// stay, and so do the pages of a read-only device. Another goroutine may call the function
// while the backing changes, or is closed.
func (b *Backing) DropCache(stop func() bool) (drop func()) {
	if !b.Direct || b.ReadOnly {
		return func() {}
	}
	file, parts := b.File, dropParts(b.Offset+b.Size)
	return func() {
		conn, err := file.SyscallConn()
		for at, length := range parts {
			if err != nil || stop() {
				return // or the file is closed
			}
			err = conn.Control(func(fd uintptr) {
				// This is advice: a file system that ignores it keeps its pages.
				_ = unix.Fadvise(int(fd), at, length, unix.FADV_DONTNEED)
			})
		}
	}
}

// dropParts yields the parts of a file to drop, by offset and length, for a device that
// ends after size bytes. The last part has length 0 and extends to the end of the file,
// even if the device ends earlier.
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
