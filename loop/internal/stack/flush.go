package stack

import (
	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ring"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// sync writes the data of all files and disks to the medium. It is the answer to a flush, and
// the last stage of a FUA request. It sends as many syncs as can be in flight, and completes
// the request if there is nothing left to wait for. In stageCommit the data is on the medium,
// and only records of stores are not.
func (h *handler) sync(req *ublk.Request, r *request) {
	for ; h.mayTake(r) && r.synced < len(h.stack.flush); r.synced++ {
		file := h.stack.flush[r.synced]
		store := h.stack.storeOf[file]
		unsaved := store != nil && store.Unsaved()
		if store != nil && store.IsInvalid() {
			r.fail(-int32(unix.EIO)) // what was written before is lost
			continue
		}
		if r.stage == stageCommit && !unsaved {
			continue
		}
		number, p := h.take(req, r)
		*p = part{file: &h.files[file], commits: unsaved}
		if unsaved {
			store.Commit(req.AsyncPart(number), req.Op == ublk.OpFlush)
		} else {
			p.sendSync(req, number)
		}
	}
	switch {
	case r.flying > 0, h.awaitSaves(req, r):
	case req.Op == ublk.OpFlush:
		req.CompleteErrno(h.stack.lost.AfterFlush(r.seen, r.errno))
	default:
		h.complete(req, r)
	}
}

// awaitSaves waits until the stores have saved records that they were saving during the sync. Their flushes can have met the
// error of the data that this one is for. It reports whether the request waits.
func (h *handler) awaitSaves(req *ublk.Request, r *request) bool {
	if r.stage != stageSync || r.errno != 0 {
		return false
	}
	for ; h.mayTake(r) && r.awaited < len(h.stack.flush); r.awaited++ {
		file := h.stack.flush[r.awaited]
		if store := h.stack.storeOf[file]; store != nil && store.IsSaving() {
			number, p := h.take(req, r)
			*p = part{file: &h.files[file], commits: true}
			store.Commit(req.AsyncPart(number), req.Op == ublk.OpFlush)
		}
	}
	return r.flying > 0
}

// complete completes a request that is not a flush.
func (h *handler) complete(req *ublk.Request, r *request) {
	if r.errno == 0 && req.Flags&ublk.FlagFUA != 0 {
		r.errno = h.stack.lost.AfterFUA(r.seen)
	}
	req.CompleteErrno(r.errno)
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
		if p.commits {
			break // a store acts itself on what its commit has met
		}
		h.flushFailed(p)
		if req.Op != ublk.OpFlush {
			h.stack.lost.Add(res)
		}
	}
	return true
}

// fuaFailed makes the next flush of the device fail after a write with FUA, and is flushFailed for the store. A write that
// finds the file system full has not lost other data. A flush can have: the page cache drops what the file system or
// the disk below has no room for. So a write to the page cache of a store has no flush in it (backingFile.syncedLater).
func (h *handler) fuaFailed(p *part, errno int32) {
	if p.file.syncedLater {
		return
	}
	h.stack.lost.AddFUA(p.file.backing, errno)
	if errno != -int32(unix.ENOSPC) && errno != -int32(unix.EDQUOT) {
		h.flushFailed(p)
	}
}

// hasUnsynced reports whether the data of a FUA write may not be on the medium.
func (h *handler) hasUnsynced() bool {
	for _, file := range h.stack.flush {
		if h.files[file].syncedLater {
			return true
		}
	}
	return false
}

// flushFailed tells the store in the file of a part that a flush, or a write with a flush, has
// failed.
func (h *handler) flushFailed(p *part) {
	for i, store := range h.stack.storeOf {
		if store != nil && h.files[i].File == p.file.File {
			store.FlushFailed()
		}
	}
}
