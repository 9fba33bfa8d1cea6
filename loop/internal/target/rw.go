package target

import (
	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk"
)

func (h *handler) read(req *ublk.Request) {
	if h.transfer == nil {
		req.ForwardAndComplete(h.file, h.position(req))
		return
	}
	h.tags[req.Tag()].step = stepRead
	req.Forward(h.file, h.position(req))
}

func (h *handler) readDone(req *ublk.Request, res int32) {
	if res == 0 {
		h.transfer.Decrypt(req.Data(), req.StartSector)
		req.Worked()
	}
	req.CompleteErrno(res)
}

func (h *handler) write(req *ublk.Request) {
	if h.readOnly {
		req.Complete(unix.EROFS)
		return
	}
	if h.transfer != nil {
		// The data is encrypted once, in the driver's copy, which belongs to this request
		// alone. When a write continues after a short result, its data is already
		// encrypted.
		h.transfer.Encrypt(req.Data(), req.StartSector)
		req.Worked()
	}
	if req.Flags&ublk.FlagFUA == 0 || !h.backing.FUAFlushes() {
		req.ForwardAndComplete(h.file, h.position(req))
		return
	}
	h.look(req)
	h.tags[req.Tag()].step = stepWrite
	req.Forward(h.file, h.position(req))
}

// writeDone handles the result of a write with FUA.
func (h *handler) writeDone(req *ublk.Request, res int32) {
	if res == 0 {
		res = h.failures.AfterFUA(h.tags[req.Tag()].seen)
	} else {
		h.failures.AddFUA(h.backing, res)
	}
	req.CompleteErrno(res)
}
