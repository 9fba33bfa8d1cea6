package target

import (
	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/loop/internal/backing"
	"github.com/ublk-loop/ublk-loop/ring"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// discard frees the space of the range.
func (h *handler) discard(req *ublk.Request) {
	switch {
	case h.readOnly:
		req.Complete(unix.EROFS)
	case h.isDisk:
		sqe := h.sqe(req, stepRange)
		backing.PrepDiscard(sqe, h.file.File, h.position(req), req.Bytes())
		if h.tags[req.Tag()].onWorker {
			sqe.Flags |= ring.IOSQE_ASYNC
		}
	default:
		h.fallocate(req, stepRange, backing.PunchHole)
	}
}

// writeZeroes makes the range read as zeroes. It frees the range's space unless the
// request forbids that.
func (h *handler) writeZeroes(req *ublk.Request) {
	switch {
	case h.readOnly:
		req.Complete(unix.EROFS)
	case req.Flags&ublk.FlagNoUnmap != 0:
		h.fallocate(req, stepRange, backing.ZeroRange)
	default:
		h.fallocate(req, stepRange, backing.PunchHole)
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
		h.fallocate(req, stepPunch, backing.PunchHole)
	case res < 0:
		req.CompleteErrno(res)
	case s == stepPunch:
		h.fallocate(req, stepAllocate, backing.Allocate)
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
