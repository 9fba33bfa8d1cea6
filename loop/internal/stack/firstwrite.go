package stack

import (
	"github.com/ublk-loop/ublk-loop/loop/internal/mapping"
	"github.com/ublk-loop/ublk-loop/transfer/snapshot"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// A firstWrite is the first write to a chunk of a snapshot. It is a part of a request.
//
//	claim ──> wait (another first write, or a merge) ──> claim
//	  ├─────> no first write any more: an ordinary part
//	  └─────> data ──> read, check, head, tail (copyStep) ──> record ──> commit ──> end
//
// A write of a whole chunk copies nothing. In copy mode, and if the data is short, the data is
// written with the copy.
type firstWrite struct {
	step   writeStep
	piece  writtenPiece
	record snapshot.Record
	copying
}

// writtenPiece is what a first write needs of its mapping.Piece.
type writtenPiece struct {
	Snapshot, Cipher   int
	Offset, At, Length uint64
}

// writeStep is what a first write waits for.
type writeStep uint8

const (
	notFirst   writeStep = iota // an ordinary part
	stepWait                    // the first write of another request, or the end of a merge
	stepData                    // the request's data
	stepBuffer                  // a free buffer
	stepRead                    // data of the origin
	stepCheck                   // hash blocks for this data
	stepHead                    // its write before the request's data
	stepTail                    // its write behind the request's data
	stepRoom                    // room for a record
	stepCommit                  // the record is durable
)

// firstWriteOf returns the state of the first write of a part.
func (h *handler) firstWriteOf(req *ublk.Request, number int) *firstWrite {
	return &h.writes[h.partIndex(req, number)]
}

// firstWrite starts a first write.
func (h *handler) firstWrite(req *ublk.Request, r *request, piece *mapping.Piece) {
	number, _ := h.take(req, r)
	w := h.firstWriteOf(req, number)
	*w = firstWrite{piece: writtenPiece{piece.Snapshot, piece.Cipher, piece.Offset, piece.At, piece.Length}}
	w.req, w.number, w.owner = req, number, h
	if h.claim(r, w) {
		h.release(r, number)
	}
}

// claim makes the write the first one to its chunk, if it still is. It reports whether the part
// has ended, with an error.
func (h *handler) claim(r *request, w *firstWrite) bool {
	store := h.stack.stores[w.piece.Snapshot]
	shift := store.Layout.Shift()
	chunk := w.piece.Offset >> shift
	for {
		slot := store.Index.Lookup(chunk)
		if slot.Writable() {
			w.step = notFirst
			h.sendTo(w, slot.Chunk())
			return false
		}
		if store.Index.Claim(chunk) {
			break
		}
		w.step = stepWait
		if store.Wait(chunk, w.req.AsyncPart(w.number)) {
			return false
		}
	}
	replacement, errno := store.Allocate(chunk)
	if errno != 0 {
		r.fail(errno)
		w.step = notFirst
		return true
	}
	w.record = snapshot.Record{Old: chunk, New: replacement}
	w.setChunk(&store.Store)
	if w.joined = h.joins(w); w.joined {
		return h.copy(r, w)
	}
	w.step = stepData
	h.sendTo(w, replacement)
	return false
}

// sendTo writes the data to a chunk of the store.
func (h *handler) sendTo(w *firstWrite, chunk uint64) {
	store := h.stack.stores[w.piece.Snapshot]
	p := h.part(w.req, w.number)
	within := w.piece.Offset & uint64(store.Layout.ChunkSize()-1)
	*p = part{file: h.storeFile(w), offset: chunk<<store.Layout.Shift() + within, at: w.piece.At, length: w.piece.Length}
	if w.piece.Cipher != 0 {
		h.encryptForStore(w.piece.Cipher, w.req.Data()[p.at:p.at+p.length], p.offset)
		w.req.Worked()
	}
	p.sendData(w.req, w.number)
}

func (h *handler) storeFile(w *firstWrite) *backingFile {
	return h.fileOf(h.stack.plan.StoreDevice(w.piece.Snapshot))
}

// dataOrFirstWriteDone handles the result of a part of a read or write. It reports whether the
// part has ended.
func (h *handler) dataOrFirstWriteDone(req *ublk.Request, r *request, p *part, number int, res int32) bool {
	if h.writes == nil || h.firstWriteOf(req, number).step == notFirst {
		return h.dataDone(req, r, p, number, res)
	}
	w := h.firstWriteOf(req, number)
	switch w.step {
	case stepWait:
		return h.claim(r, w)
	case stepBuffer:
		return h.beginCopy(r, w)
	case stepRoom:
		if res != 0 {
			return h.writeFailed(r, w, res)
		}
		return h.addRecord(r, w)
	case stepCommit:
		// Also after an error the chunk has the data, and a later commit saves the record.
		h.stack.stores[w.piece.Snapshot].Publish(w.record)
		return h.writeEnded(r, w, res)
	}
	res, sent := h.groupDone(w, res)
	if sent {
		return false
	}
	return h.stepDone(r, w, p, res)
}

// stepDone goes on after the end of an operation.
func (h *handler) stepDone(r *request, w *firstWrite, p *part, res int32) bool {
	more, errno := p.advance(res)
	switch {
	case more:
		w.req.Retried()
		h.sendStep(w)
		return false
	case w.step == stepCheck:
		h.checker.copyReadDone(w, errno)
		return false
	case errno != 0:
		return h.operationFailed(r, w, p, errno)
	case w.step == stepData && !w.isWhole():
		return h.copy(r, w)
	case w.step == stepData:
		return h.addRecord(r, w)
	default:
		return h.copyOn(r, w)
	}
}

// addRecord adds the record of a write whose data is in the store.
func (h *handler) addRecord(r *request, w *firstWrite) bool {
	store := h.stack.stores[w.piece.Snapshot]
	switch {
	case !store.Add(w.record):
		w.step = stepRoom
		store.Commit(w.req.AsyncPart(w.number), false)
		return false
	case store.Eager:
		w.step = stepCommit
		store.CommitWithOthers(w.req.AsyncPart(w.number))
		return false
	default:
		return h.writeEnded(r, w, 0)
	}
}

// operationFailed ends a first write of which a read or write has failed.
func (h *handler) operationFailed(r *request, w *firstWrite, p *part, errno int32) bool {
	withFlush := w.step == stepData && w.req.Flags&ublk.FlagFUA != 0
	ended := h.writeFailed(r, w, errno)
	if withFlush {
		h.fuaFailed(p, errno)
	}
	return ended
}

// writeFailed ends a first write that has no record.
func (h *handler) writeFailed(r *request, w *firstWrite, errno int32) bool {
	h.stack.stores[w.piece.Snapshot].GiveBack(w.record)
	return h.writeEnded(r, w, errno)
}

func (h *handler) writeEnded(r *request, w *firstWrite, errno int32) bool {
	w.step = notFirst
	r.fail(errno)
	h.releaseBuffer(w)
	return true
}
