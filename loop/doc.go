// Package loop serves a file or a disk as a block device of package ublk.
//
// # What is durable when
//
// A write is complete when the backing file has it: in its page cache, or with
// direct I/O on the device below. A flush is an fdatasync of the backing file
// and an FUA write is made with RWF_DSYNC, so what either completes is on the
// medium as far as the file system below promises for fdatasync(2).
//
// # What discard and write-zeroes do
//
// On a file both punch a hole: the range reads as zeroes and takes no space. A
// write-zeroes that wants its space kept zeroes the range in place. On a disk a
// discard is a discard, whatever its blocks read as afterwards, and a
// write-zeroes is the disk's own. What the backing cannot do is not announced.
//
// # A request's way
//
// One entry on the queue's own ring a request, whole: what the kernel gave as
// one request goes to the backing file as one operation. Only a short result
// makes another, for the rest. A result is all of the request or an errno.
package loop
