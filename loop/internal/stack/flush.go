package stack

import (
	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ring"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// sync writes the data of all files and disks to the medium. It is the answer to a flush, and
// the last stage of a FUA request that changes a range. It sends as many syncs as can be in
// flight, and completes the request if there is nothing left to wait for.
func (h *handler) sync(req *ublk.Request, r *request) {
	for ; r.free != 0 && r.synced < len(h.stack.flush); r.synced++ {
		number, p := h.take(req, r)
		*p = part{file: &h.files[h.stack.flush[r.synced]]}
		p.sendSync(req, number)
	}
	if r.flying == 0 {
		req.CompleteErrno(r.errno)
	}
}

func (p *part) sendSync(req *ublk.Request, number int) {
	req.PartSQE(number).PrepFsync(p.file.File.File, ring.IORING_FSYNC_DATASYNC)
}

// syncDone handles the result of a sync. It reports whether the part has ended.
func (h *handler) syncDone(req *ublk.Request, r *request, p *part, number int, res int32) bool {
	switch {
	case res == -int32(unix.EINTR):
		req.Retried()
		p.sendSync(req, number)
		return false
	case res < 0:
		r.fail(res)
	}
	return true
}
