package backing

import "golang.org/x/sys/unix"

// While the page cache has a single page of a file, each direct write looks for
// its own there, before and after (kiocb_invalidate_pages and its like in
// mm/filemap.c): of random writes of 4 KiB to an ext4 that takes a tenth of the
// time. An image that has just been made is cached from end to end.

// dropStep is how much of a file is looked through at once, in bytes: pages of
// 4 KiB take 50 ms then.
const dropStep = 1 << 30

// DropCache gives back what the page cache has of the file or disk, unless a function
// says to stop: a device with direct I/O has no use for it. What is still to be written
// stays, and so does what a device only reads.
func (b *Backing) DropCache(stop func() bool) {
	if !b.Direct || b.ReadOnly {
		return
	}
	last := b.Offset + b.Size - 1
	for at := uint64(0); at <= last && !stop(); at += dropStep {
		length := int64(dropStep)
		if last-at < dropStep {
			length = 0 // to the end of the file, however much of that is the device's
		}
		// Advice: a file system that does not take it keeps its pages.
		_ = unix.Fadvise(b.FD, int64(at), length, unix.FADV_DONTNEED)
	}
}
