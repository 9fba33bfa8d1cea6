package stack

import (
	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/loop/internal/backing"
	"github.com/ublk-loop/ublk-loop/loop/internal/mapping"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// step is the operation on a range that a part waits for. Package target has the same steps
// for a device of one file.
type step uint8

const (
	stepDiscard    step = iota // on a disk
	stepPunch                  // a hole, which is also the discard of a file
	stepZero                   // zeroes in place
	stepPunchFirst             // a hole, before its space is allocated again
	stepAllocate
)

// changeRange begins a discard or write-zeroes. A device that got its store in use still offers both:
// the block layer then writes the zeroes as data, and a discard may do nothing.
func (h *handler) changeRange(req *ublk.Request) {
	if req.Op == ublk.OpWriteZeroes && len(h.stack.stores) > 0 {
		req.Complete(unix.EOPNOTSUPP)
		return
	}
	r := h.begin(req, stageRange)
	h.stack.plan.RangeWalk(&h.ranges[req.Tag()], req.Offset(), req.Bytes())
	h.sendRanges(req, r)
}

// sendRanges starts as many pieces as can be in flight. It goes on if there is nothing left to
// wait for.
func (h *handler) sendRanges(req *ublk.Request, r *request) {
	for h.mayTake(r) {
		piece, ok := h.ranges[req.Tag()].Next()
		if !ok {
			break
		}
		switch piece.Kind {
		case mapping.Error:
			r.fail(-int32(unix.EIO))
		case mapping.Device, mapping.Clear:
			number, p := h.take(req, r)
			file := h.fileOf(piece.Device)
			*p = part{file: file, offset: piece.Offset, length: piece.Length, step: firstStep(req, piece.Kind, file)}
			p.sendRange(req, number)
		}
	}
	switch {
	case r.flying > 0:
	case r.errno == 0 && req.Flags&ublk.FlagFUA != 0:
		r.stage = stageSync
		h.sync(req, r)
	default:
		h.complete(req, r)
	}
}

// firstStep returns the step with which the change of a range begins.
func firstStep(req *ublk.Request, kind mapping.Kind, file *backingFile) step {
	switch {
	case kind == mapping.Clear && file.isDisk:
		return stepZero // a discard leaves any bytes
	case req.Op == ublk.OpDiscard && file.isDisk:
		return stepDiscard
	case req.Op == ublk.OpWriteZeroes && req.Flags&ublk.FlagNoUnmap != 0:
		return stepZero
	}
	return stepPunch
}

// sendRange sends the operation of a part's step.
func (p *part) sendRange(req *ublk.Request, number int) {
	sqe := req.PartSQE(number)
	file := p.file.File.File
	switch p.step {
	case stepDiscard:
		backing.PrepDiscard(sqe, file, p.offset, p.length)
	case stepZero:
		sqe.PrepFallocate(file, backing.ZeroRange, p.offset, p.length)
	case stepAllocate:
		sqe.PrepFallocate(file, backing.Allocate, p.offset, p.length)
	default:
		sqe.PrepFallocate(file, backing.PunchHole, p.offset, p.length)
	}
	p.setWorker(sqe)
}

// rangeDone handles the result of a step. It reports whether the part has ended.
func (h *handler) rangeDone(req *ublk.Request, r *request, p *part, number int, res int32) bool {
	switch {
	case res == -int32(unix.EINTR):
		req.Retried()
	case res == -int32(unix.EOPNOTSUPP) && p.step == stepDiscard && !p.onWorker:
		// The disk may have refused only because the command must not block
		// (submit_bio_noacct in block/blk-core.c).
		p.onWorker = true
		req.Retried()
	case res == -int32(unix.EOPNOTSUPP) && p.step == stepZero && !p.file.isDisk:
		// A file system such as tmpfs lacks ZERO_RANGE. Two other operations have the
		// same effect.
		p.step = stepPunchFirst
	case res < 0:
		r.fail(res)
		return true
	case p.step == stepPunchFirst:
		p.step = stepAllocate
	default:
		return true
	}
	p.sendRange(req, number)
	return false
}
