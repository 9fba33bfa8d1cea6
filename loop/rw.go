package loop

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
		// In the driver's copy, which is this request's alone, and once:
		// a write that goes on after a short result is encrypted already.
		h.transfer.Encrypt(req.Data(), req.StartSector)
		req.Worked()
	}
	req.ForwardAndComplete(h.file, h.position(req))
}
