package stack

import (
	"math/bits"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ring"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// part is an operation of a request.
type part struct {
	file     *backingFile
	offset   uint64 // in the file
	at       uint64 // of the data in the request
	length   uint64
	step     step
	slot     int  // 1 + the slot of hash blocks that are read ahead; 0 for data
	onWorker bool // only a worker thread of the ring can do the rest
}

// part returns a part of a request.
func (h *handler) part(req *ublk.Request, number int) *part {
	return &h.parts[req.Tag()*h.width+number]
}

// take returns a free number of a part and the part, which is in flight from now on.
func (h *handler) take(req *ublk.Request, r *request) (int, *part) {
	number := bits.TrailingZeros32(r.free)
	r.free &^= 1 << number
	r.flying++
	return number, h.part(req, number)
}

// sendData sends the read or write of a part.
func (p *part) sendData(req *ublk.Request, number int) {
	addr, index := req.Buffer(uint32(p.at))
	sqe := req.PartSQE(number)
	if req.Op == ublk.OpRead {
		sqe.PrepReadFixed(p.file.File.File, addr, uint32(p.length), p.offset, index)
	} else {
		var flags uint32
		if req.Flags&ublk.FlagFUA != 0 {
			flags = unix.RWF_DSYNC
		}
		sqe.PrepWriteFixed(p.file.File.File, addr, uint32(p.length), p.offset, index, flags)
	}
	if p.onWorker {
		sqe.Flags |= ring.IOSQE_ASYNC
	}
}

// dataDone handles the result of a read or write. It reports whether the part has ended.
func (h *handler) dataDone(req *ublk.Request, r *request, p *part, number int, res int32) bool {
	more, errno := p.advance(res)
	if !more {
		r.fail(errno)
		return true
	}
	req.Retried()
	if r.stage == stageCheck {
		h.checker.sendPart(h.checker.checkOf(req, number), number, p)
	} else {
		p.sendData(req, number)
	}
	return false
}

// advance takes the result of a read or write. It reports whether a rest has to be sent, and
// otherwise 0 or the error. The rules are those of ublk.Request.Forward.
func (p *part) advance(res int32) (more bool, errno int32) {
	switch {
	case res == -int32(unix.EINTR):
	case res == -int32(unix.EAGAIN) && !p.onWorker:
		p.onWorker = true
	case res < 0:
		return false, res
	case uint64(res) == p.length:
		return false, 0
	default:
		done := uint64(res)
		if done -= done % uint64(max(p.file.Block, 1)); done == 0 {
			// The file has no more bytes there, because it was truncated.
			return false, -int32(unix.EIO)
		}
		p.offset, p.at, p.length = p.offset+done, p.at+done, p.length-done
	}
	return true, 0
}
