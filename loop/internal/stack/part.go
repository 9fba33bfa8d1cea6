package stack

import (
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
	commits  bool // a store saves its records, and flushes
}

// part returns a part of a request.
func (h *handler) part(req *ublk.Request, number int) *part {
	return &h.parts[h.partIndex(req, number)]
}

// partIndex returns what a part has as its index in lists. Each request has a part of its own, so
// that it can always go on. All requests share the others.
func (h *handler) partIndex(req *ublk.Request, number int) int {
	if number == 0 {
		return req.Tag()
	}
	return len(h.requests) + number - 1
}

// mayTake reports whether take finds a free number.
func (h *handler) mayTake(r *request) bool { return !r.busy || len(h.extra) > 0 }

// take returns a free number of a part and the part, which is in flight from now on.
func (h *handler) take(req *ublk.Request, r *request) (int, *part) {
	number := 0
	if r.busy {
		n := len(h.extra) - 1
		number, h.extra = h.extra[n], h.extra[:n]
	}
	r.busy = true
	r.flying++
	p := h.part(req, number)
	p.slot = 0 // a first write that waits does not fill the rest
	return number, p
}

// release frees the number of a part that has ended.
func (h *handler) release(r *request, number int) {
	r.flying--
	if number == 0 {
		r.busy = false
	} else {
		h.extra = append(h.extra, number)
	}
}

// setWorker leaves the operation of an entry to a worker thread if only that can do it. It comes after
// the function that fills the entry.
func (p *part) setWorker(sqe *ring.SQE) {
	if p.onWorker {
		sqe.Flags |= ring.IOSQE_ASYNC
	}
}

// sendData sends the read or write of a part.
func (p *part) sendData(req *ublk.Request, number int) {
	addr, index := req.Buffer(uint32(p.at))
	sqe := req.PartSQE(number)
	if req.Op == ublk.OpRead {
		sqe.PrepReadFixed(p.file.File.File, addr, uint32(p.length), p.offset, index)
	} else {
		var flags uint32
		if req.Flags&ublk.FlagFUA != 0 && !p.file.syncedLater {
			flags = unix.RWF_DSYNC
		}
		sqe.PrepWriteFixed(p.file.File.File, addr, uint32(p.length), p.offset, index, flags)
	}
	p.setWorker(sqe)
}

// dataDone handles the result of a read or write. It reports whether the part has ended.
func (h *handler) dataDone(req *ublk.Request, r *request, p *part, number int, res int32) bool {
	more, errno := p.advance(res)
	if !more {
		r.fail(errno)
		if errno != 0 && req.Op == ublk.OpWrite && req.Flags&ublk.FlagFUA != 0 {
			h.fuaFailed(p, errno)
		}
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
