package backing

import (
	"math"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ring"
)

// These are the modes of fallocate(2) with which discards and write-zeroes are carried out.
// None of them changes the file's size.
const (
	PunchHole = unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE // frees the space
	ZeroRange = unix.FALLOC_FL_ZERO_RANGE | unix.FALLOC_FL_KEEP_SIZE // keeps it; tmpfs, for example, lacks this
	Allocate  = unix.FALLOC_FL_KEEP_SIZE
)

// MaxHoleBytes is the largest discard and write-zeroes request: kernels before 6.11 lose
// the bits above 32 of its length in bytes.
const MaxHoleBytes = math.MaxUint32

// PrepDiscard fills an entry with the discard of n bytes at byte off of a disk (Linux 6.12).
// If the discard would block, the kernel carries it out on a worker thread
// (blkdev_cmd_discard in block/ioctl.c).
func PrepDiscard(sqe *ring.SQE, disk ring.File, off, n uint64) {
	sqe.PrepURingCmd(disk, BLOCK_URING_CMD_DISCARD)
	sqe.Addr, sqe.Addr3 = off, n
}
