package stack

import (
	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/loop/internal/mapping"
	"github.com/ublk-loop/ublk-loop/ring"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// copying is what a first write copies. Offsets are in the chunk.
type copying struct {
	req        *ublk.Request
	number     int         // of the part
	owner      *handler    // whose request it is
	next       *firstWrite // in the list of those that wait for a buffer
	follower   *firstWrite // the next member of a group
	buffer     int         // number of the buffer plus 1; 0 for none
	start      uint64      // of the chunk, in the snapshot
	chunk      uint64      // length of the chunk in the store
	ofOrigin   uint64      // how much of it the origin has
	from, to   uint64      // the request's data
	readDone   uint64      // how much of it has begun
	readFrom   uint64      // start of a range of the origin that is read
	readLength uint64      // its length
	lastRange  bool        // no other range is read after it
	joined     bool        // the buffer gets the request's data too, and is written at once
	beginning  bool        // checkCopy has not returned yet
	ended      bool        // the part has ended before that
	flying     bool        // an operation of the check is in flight
}

// setChunk sets the chunk of a write, and which part of it the request's data is.
func (w *firstWrite) setChunk(store *mapping.Store) {
	w.start, w.ofOrigin, w.chunk = store.Chunk(w.record.Old)
	w.from = w.piece.Offset - w.start
	w.to = w.from + w.piece.Length
}

// isWhole reports whether the request has all data of the chunk.
func (w *firstWrite) isWhole() bool { return w.from == 0 && w.to >= w.chunk }

// joins reports whether a write gets its data into the buffer. That takes a copy, but the chunk
// is one write then: a file system allocates its blocks once, and the disk has one request
// instead of three.
func (h *handler) joins(w *firstWrite) bool {
	return !w.isWhole() && (h.copies || w.piece.Length <= maxGap && h.queue.CanRead())
}

// copy begins to copy the data of the origin around that of the request. It reports whether
// the part has ended, with an error.
func (h *handler) copy(r *request, w *firstWrite) bool {
	if !h.buffers.take(w) {
		w.step = stepBuffer
		return false
	}
	return h.beginCopy(r, w)
}

// maxGap is the largest amount of data of the request that is read from the origin although
// it is not needed, because one read costs less than two, and that is copied into the buffer
// although the request's own pages could be written.
const maxGap = 16 << 10

// beginCopy begins to read what is before the data, and what is behind it if the data is short.
// What is checked is one range.
func (h *handler) beginCopy(r *request, w *firstWrite) bool {
	w.step, w.lastRange = stepRead, true
	switch {
	case w.from == 0:
		return h.read(r, w, w.to, w.chunk)
	case w.to == w.chunk:
		return h.read(r, w, 0, w.from)
	case w.to-w.from <= maxGap, h.bufferOrigins != nil:
		return h.read(r, w, 0, w.chunk)
	default:
		w.lastRange = false
		return h.read(r, w, 0, w.from)
	}
}

// read begins to read a range of the chunk. What the origin does not have is zero.
func (h *handler) read(r *request, w *firstWrite, from, to uint64) bool {
	if to > w.ofOrigin {
		clear(h.bufferOf(w)[w.ofOrigin:to])
		to = w.ofOrigin
	}
	w.readFrom, w.readLength, w.readDone = from, to-from, 0
	return h.readOn(r, w)
}

// readOn reads the next piece of the origin.
func (h *handler) readOn(r *request, w *firstWrite) bool {
	for {
		at := w.readFrom + w.readDone
		walk := h.stack.plan.Origin(w.piece.Snapshot).Walk(w.start+at, w.readLength-w.readDone)
		piece, ok := walk.Next()
		if !ok {
			return h.rangeRead(r, w)
		}
		w.readDone += piece.Length
		if h.bufferOrigins != nil {
			note(h.originsOfCopy(w), at, &piece)
		}
		switch piece.Kind {
		case mapping.Zero:
			clear(h.bufferOf(w)[at : at+piece.Length])
		case mapping.Device:
			h.sendCopy(w, h.fileOf(piece.Device), piece.Offset, at, piece.Length)
			return false
		default:
			return h.writeFailed(r, w, -int32(unix.EIO))
		}
	}
}

// rangeRead goes on when a range has been read: with the range behind the data, or else with the check
// or the write of the copy.
func (h *handler) rangeRead(r *request, w *firstWrite) bool {
	switch {
	case !w.lastRange:
		w.lastRange = true
		return h.read(r, w, w.to, w.chunk)
	case h.bufferOrigins != nil:
		return h.checker.checkCopy(w)
	default:
		return h.writeCopy(r, w)
	}
}

// writeCopy begins to write what was read.
func (h *handler) writeCopy(r *request, w *firstWrite) bool {
	if w.joined {
		if err := w.req.ReadData(h.bufferOf(w)[w.from:w.to], w.piece.At); err != nil {
			return h.writeFailed(r, w, ublk.Result(err))
		}
		h.encryptForStore(w.piece.Cipher, h.bufferOf(w)[:w.chunk], h.replacement(w))
		w.step = stepTail
		h.sendGrouped(w)
		return false
	}
	if w.from == 0 {
		return h.writeTail(r, w)
	}
	w.step = stepHead
	h.sendCopy(w, h.storeFile(w), h.replacement(w), 0, w.from)
	return false
}

func (h *handler) writeTail(r *request, w *firstWrite) bool {
	if w.to == w.chunk {
		return h.copied(r, w)
	}
	w.step = stepTail
	h.sendCopy(w, h.storeFile(w), h.replacement(w)+w.to, w.to, w.chunk-w.to)
	return false
}

// copyOn goes on with a copy after the end of a read or write.
func (h *handler) copyOn(r *request, w *firstWrite) bool {
	switch w.step {
	case stepRead:
		return h.readOn(r, w)
	case stepHead:
		return h.writeTail(r, w)
	default:
		return h.copied(r, w)
	}
}

func (h *handler) copied(r *request, w *firstWrite) bool {
	h.releaseBuffer(w)
	return h.addRecord(r, w)
}

// replacement returns the offset of the chunk in the store.
func (h *handler) replacement(w *firstWrite) uint64 {
	return w.record.New << h.stack.stores[w.piece.Snapshot].Layout.Shift()
}

// sendCopy reads or writes a part of the buffer.
func (h *handler) sendCopy(w *firstWrite, file *backingFile, offset, at, length uint64) {
	*h.part(w.req, w.number) = part{file: file, offset: offset, at: at, length: length}
	h.sendStep(w)
}

// sendStep sends the operation of a step, or its rest. It returns the entry of an operation on the
// buffer.
func (h *handler) sendStep(w *firstWrite) (sqe *ring.SQE) {
	p := h.part(w.req, w.number)
	switch w.step {
	case stepData:
		p.sendData(w.req, w.number)
		return nil
	case stepCheck:
		h.checker.sendPart(h.checker.checkOf(w.req, w.number), w.number, p)
		return nil
	}
	sqe = w.req.PartSQE(w.number)
	addr := ring.Address(h.bufferOf(w)[p.at:])
	if w.step == stepRead {
		sqe.PrepRead(p.file.File.File, addr, uint32(p.length), p.offset)
	} else {
		sqe.PrepWrite(p.file.File.File, addr, uint32(p.length), p.offset)
	}
	p.setWorker(sqe)
	return sqe
}
