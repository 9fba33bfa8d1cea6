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
	seen := h.tags[req.Tag()].seen
	switch {
	case res == -int32(unix.EINTR):
		req.Retried()
		h.sync(req)
		return
	case req.Op == ublk.OpFlush:
		res = h.failures.AfterFlush(seen, res)
	case res == 0:
		res = h.failures.AfterFUA(seen)
	default:
		h.failures.Add(res)
	}
	req.CompleteErrno(res)
}

// look prepares the use of failures for a request. The operations of the request follow.
func (h *handler) look(req *ublk.Request) { h.tags[req.Tag()].seen = h.failures.Look() }
