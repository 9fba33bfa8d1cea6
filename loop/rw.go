package loop

import (
	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ring"
	"github.com/ublk-loop/ublk-loop/ublk"
)

func (h *handler) read(req *ublk.Request) {
	sqe := h.sqe(req, stepData)
	h.prepRead(sqe, req)
	if h.transfer == nil {
		req.CompleteAfter(sqe)
	}
}

func (h *handler) prepRead(sqe *ring.SQE, req *ublk.Request) {
	done := h.tags[req.Tag()].done
	addr, index := req.Buffer(done)
	sqe.PrepReadFixed(h.file, addr, uint32(req.Bytes())-done, h.position(req)+uint64(done), index)
}

func (h *handler) write(req *ublk.Request) {
	if h.readOnly {
		req.Complete(unix.EROFS)
		return
	}
	if h.transfer != nil {
		// In the driver's copy, which is this request's alone, and once: what
		// is tried again is encrypted already.
		h.transfer.Encrypt(req.Data(), req.StartSector)
		req.Worked()
	}
	sqe := h.sqe(req, stepData)
	h.prepWrite(sqe, req)
	req.CompleteAfter(sqe)
}

func (h *handler) prepWrite(sqe *ring.SQE, req *ublk.Request) {
	var rwFlags uint32
	if req.Flags&ublk.FlagFUA != 0 {
		rwFlags = unix.RWF_DSYNC
	}
	done := h.tags[req.Tag()].done
	addr, index := req.Buffer(done)
	sqe.PrepWriteFixed(h.file, addr, uint32(req.Bytes())-done, h.position(req)+uint64(done), index, rwFlags)
}

// dataDone handles the result of a read or write: all of it, the errno, or a
// short count, after which the rest is asked for.
func (h *handler) dataDone(req *ublk.Request, res int32) {
	p := &h.tags[req.Tag()]
	if res < 0 {
		h.dataFailed(req, res)
		return
	}
	done := p.done + uint32(res)
	if uint64(done) == req.Bytes() {
		if h.transfer != nil && req.Op == ublk.OpRead {
			h.transfer.Decrypt(req.Data(), req.StartSector)
			req.Worked()
		}
		req.Complete(nil)
		return
	}
	done &= h.blockMask
	if done <= p.done {
		// Nothing more comes: the file ends here, cut short behind our back.
		req.Complete(unix.EIO)
		return
	}
	p.done = done
	h.again(req)
}

// dataFailed completes the request with the errno, unless that says to try
// again: after EAGAIN once, on one of the ring's worker threads, which can wait
// for what was short. All that is left of the request is done there.
func (h *handler) dataFailed(req *ublk.Request, res int32) {
	p := &h.tags[req.Tag()]
	switch {
	case res == -int32(unix.EINTR):
		h.again(req)
	case res == -int32(unix.EAGAIN) && !p.onWorker:
		p.onWorker = true
		h.again(req)
	default:
		req.CompleteErrno(res)
	}
}

// again asks for what is left of a read or write.
func (h *handler) again(req *ublk.Request) {
	req.Retried()
	sqe := req.SQE()
	if req.Op == ublk.OpRead {
		h.prepRead(sqe, req)
	} else {
		h.prepWrite(sqe, req)
	}
	if h.tags[req.Tag()].onWorker {
		sqe.Flags |= ring.IOSQE_ASYNC
	}
}
