package target

import (
	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/loop/internal/backing"
	"github.com/ublk-loop/ublk-loop/ring"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// These are the used modes of fallocate(2). None of them changes the file's size.
const (
	punchHole = unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE
	zeroRange = unix.FALLOC_FL_ZERO_RANGE | unix.FALLOC_FL_KEEP_SIZE
	allocate  = unix.FALLOC_FL_KEEP_SIZE
)

// discard frees the space of the range.
func (h *handler) discard(req *ublk.Request) {
	switch {
	case h.readOnly:
		req.Complete(unix.EROFS)
	case h.isDisk:
		// If the command would block, the kernel runs it on a worker thread (Linux 6.12,
		// block/ioctl.c, blkdev_cmd_discard).
		sqe := h.sqe(req, stepRange)
		sqe.PrepURingCmd(h.file.File, backing.BLOCK_URING_CMD_DISCARD)
		sqe.Addr = h.position(req)
		sqe.Addr3 = req.Bytes()
		if h.tags[req.Tag()].onWorker {
			sqe.Flags |= ring.IOSQE_ASYNC
		}
	default:
		h.fallocate(req, stepRange, punchHole)
	}
}

// writeZeroes makes the range read as zeroes. It frees the range's space unless the
// request forbids that.
func (h *handler) writeZeroes(req *ublk.Request) {
	switch {
	case h.readOnly:
		req.Complete(unix.EROFS)
	case req.Flags&ublk.FlagNoUnmap != 0:
		h.fallocate(req, stepRange, zeroRange)
	default:
		h.fallocate(req, stepRange, punchHole)
	}
}

func (h *handler) fallocate(req *ublk.Request, s step, mode uint32) {
	sqe := h.sqe(req, s)
	sqe.PrepFallocate(h.file.File, mode, h.position(req), req.Bytes())
}

// rangeDone handles the result of a step of a discard or write-zeroes.
func (h *handler) rangeDone(req *ublk.Request, res int32) {
	s := h.tags[req.Tag()].step
	switch {
	case res == -int32(unix.EINTR):
		req.Retried()
		h.Handle(req) // every step can be repeated
	case res == -int32(unix.EOPNOTSUPP) && h.refusedNowait(req):
		h.tags[req.Tag()].onWorker = true
		req.Retried()
		h.discard(req)
	case res < 0 && s == stepRange && h.zeroesInPlace(req) && res == -int32(unix.EOPNOTSUPP):
		// A file system such as tmpfs lacks ZERO_RANGE. Two other operations have the
		// same effect.
		h.fallocate(req, stepPunch, punchHole)
	case res < 0:
		req.CompleteErrno(res)
	case s == stepPunch:
		h.fallocate(req, stepAllocate, allocate)
	case req.Flags&ublk.FlagFUA != 0:
		h.sync(req)
	default:
		req.Complete(nil)
	}
}

// refusedNowait reports whether the request is a discard that a disk may have refused
// only because the command must not block. Many targets of device mapper, and zram, do
// that (submit_bio_noacct in block/blk-core.c). A worker thread may block.
func (h *handler) refusedNowait(req *ublk.Request) bool {
	p := &h.tags[req.Tag()]
	return h.isDisk && req.Op == ublk.OpDiscard && p.step == stepRange && !p.onWorker
}

// zeroesInPlace reports whether the request used ZERO_RANGE on a file. On a disk the
// kernel itself writes zeroes if the disk has no command for that.
func (h *handler) zeroesInPlace(req *ublk.Request) bool {
	return !h.isDisk && req.Op == ublk.OpWriteZeroes && req.Flags&ublk.FlagNoUnmap != 0
}
