package target

import (
	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ring"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// sync writes data to the medium. It is the answer to a flush, and the last step of a FUA
// request that changes a range. The backing file never grows, so that fdatasync covers
// everything that a later read needs.
func (h *handler) sync(req *ublk.Request) {
	sqe := h.sqe(req, stepSync)
	sqe.PrepFsync(h.file.File, ring.IORING_FSYNC_DATASYNC)
}

func (h *handler) syncDone(req *ublk.Request, res int32) {
	if res == -int32(unix.EINTR) {
		req.Retried()
		h.sync(req)
		return
	}
	req.CompleteErrno(res)
}
