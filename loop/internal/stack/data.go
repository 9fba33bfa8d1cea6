package stack

import (
	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/loop/internal/mapping"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// readOrWrite begins a read or write. The kernel completes one with a single piece by itself,
// unless it is a read that must be decrypted.
func (h *handler) readOrWrite(req *ublk.Request) {
	if h.levels > 0 && req.Op == ublk.OpWrite {
		h.encrypt(req)
	}
	piece, _ := h.next(req, 0)
	if piece.Length == req.Bytes() && h.mayForward(req, &piece) {
		h.forward(req, &piece)
		return
	}
	r := h.begin(req, stageData)
	r.done = piece.Length
	h.startPiece(req, r, &piece)
	if h.checker != nil && req.Op == ublk.OpRead {
		h.checker.readAhead(req, r)
	}
	h.sendData(req, r)
}

// next returns the piece of a request at a place; ok is false behind the last one.
func (h *handler) next(req *ublk.Request, at uint64) (piece mapping.Piece, ok bool) {
	var walk mapping.Walk
	if req.Op == ublk.OpWrite {
		walk = h.stack.plan.WriteWalk(req.Offset()+at, req.Bytes()-at)
	} else {
		walk = h.stack.plan.Walk(req.Offset()+at, req.Bytes()-at)
	}
	piece, ok = walk.Next()
	piece.At = at
	return piece, ok
}

// mayForward reports whether the kernel can complete a request with a single piece. Nothing would
// tell a store, or the next flush, that the flush of such a write has failed.
func (h *handler) mayForward(req *ublk.Request, piece *mapping.Piece) bool {
	switch {
	case req.Op == ublk.OpRead:
		return h.levels == 0
	case piece.Kind == mapping.FirstWrite, h.isBehind():
		return false
	case req.Flags&ublk.FlagFUA == 0:
		return true
	case len(h.stack.stores) > 0:
		return false
	}
	return piece.Kind != mapping.Device || !h.fileOf(piece.Device).backing.FUAFlushes()
}

// forward carries out a request with a single piece.
func (h *handler) forward(req *ublk.Request, piece *mapping.Piece) {
	switch {
	case piece.Kind == mapping.Device:
		h.encryptPiece(req, piece)
		req.ForwardAndComplete(h.fileOf(piece.Device).File, piece.Offset)
	case piece.Kind == mapping.Error:
		req.Complete(unix.EIO)
	case req.Op == ublk.OpWrite:
		req.Complete(nil)
	case h.copies:
		clear(req.Data())
		req.Worked()
		req.Complete(nil)
	default:
		req.ForwardAndComplete(h.zeroes.File, 0)
	}
}

// encryptPiece transforms the data of a write to a chunk that an encrypted store has.
func (h *handler) encryptPiece(req *ublk.Request, piece *mapping.Piece) {
	if piece.Cipher != 0 && req.Op == ublk.OpWrite {
		h.encryptForStore(piece.Cipher, req.Data()[piece.At:piece.At+piece.Length], piece.Offset)
		req.Worked()
	}
}

// startPiece starts the operation of a piece, if it needs one.
func (h *handler) startPiece(req *ublk.Request, r *request, piece *mapping.Piece) {
	if h.requestOrigins != nil && req.Op == ublk.OpRead {
		note(h.originsOf(req), piece.At, piece)
	}
	file, offset := &h.zeroes, uint64(0) // for a read of zeroes without a copy
	switch {
	case piece.Kind == mapping.Device:
		h.encryptPiece(req, piece)
		file, offset = h.fileOf(piece.Device), piece.Offset
	case piece.Kind == mapping.Error:
		r.fail(-int32(unix.EIO))
		return
	case piece.Kind == mapping.FirstWrite:
		h.firstWrite(req, r, piece)
		return
	case req.Op == ublk.OpWrite:
		return
	case h.copies:
		clear(req.Data()[piece.At : piece.At+piece.Length])
		req.Worked()
		return
	}
	number, p := h.take(req, r)
	*p = part{file: file, offset: offset, at: piece.At, length: piece.Length}
	p.sendData(req, number)
}

// sendData starts as many pieces as can be in flight. It completes the request if there is
// nothing left to wait for.
func (h *handler) sendData(req *ublk.Request, r *request) {
	for h.mayTake(r) {
		piece, ok := h.next(req, r.done)
		if !ok {
			break
		}
		r.done += piece.Length
		h.startPiece(req, r, &piece)
	}
	if r.flying > 0 {
		return
	}
	if h.levels > 0 && req.Op == ublk.OpRead && r.errno == 0 {
		if h.checker != nil {
			h.checker.begin(req, r)
			return
		}
		h.decrypt(req)
	}
	if req.Op == ublk.OpWrite && r.errno == 0 && h.syncWritten(req, r) {
		return
	}
	h.complete(req, r)
}

// syncWritten makes a write durable whose data has been written, if that is missing. It then completes the request.
func (h *handler) syncWritten(req *ublk.Request, r *request) bool {
	isFUA := req.Flags&ublk.FlagFUA != 0
	switch {
	case isFUA && h.hasUnsynced():
		r.stage = stageSync
	case isFUA && h.hasUnsaved(), h.isBehind():
		r.stage = stageCommit
	default:
		return false
	}
	h.sync(req, r)
	return true
}
