// Package loop serves a file or a disk as a block device of package ublk.
//
// # What is durable when
//
// A write completes when the data is in the page cache of the backing file. With direct
// I/O it completes when the device below has accepted the data. A flush is an fdatasync of
// the backing file, and a FUA write is a write with RWF_DSYNC. When either completes, the
// data is on the medium, as far as the file system below guarantees that for fdatasync(2).
//
// # What discard and write-zeroes do
//
// On a file both punch a hole: the range reads as zeroes and takes no space. If a
// write-zeroes must keep the space, the server zeroes the range in place instead. A disk
// gets both as they are, and discarded blocks may read as anything afterwards. The device
// does not announce operations that the backing lacks.
//
// # The path of a request
//
// A request is one entry on the queue's own ring, so that each request of the kernel
// becomes one operation on the backing file. If the result is short, the server submits
// another entry for the rest. The result is the whole request or an errno.
package loop
