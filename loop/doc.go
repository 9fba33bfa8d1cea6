// Package loop serves a file or a disk as a block device of package ublk.
//
// # What is durable when
//
// A write is complete when the backing file has it: in its page cache, or with direct I/O
// on the device below. A flush is an fdatasync of the backing file, and a FUA write is a
// write with RWF_DSYNC. When either completes, the data is on the medium, as far as the
// file system below guarantees that for fdatasync(2).
//
// # What discard and write-zeroes do
//
// On a file both punch a hole: the range reads as zeroes and takes no space. A
// write-zeroes that has to keep the space zeroes the range in place. On a disk a discard
// is a discard, and its blocks may read as anything afterwards. A write-zeroes is the
// disk's own. The device does not announce operations that the backing lacks.
//
// # The path of a request
//
// A request is one entry on the queue's own ring, so that each request of the kernel
// becomes one operation on the backing file. Only after a short result does another entry
// follow, for the rest. The result is the whole request or an errno.
package loop
