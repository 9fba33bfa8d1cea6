package ublk

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ring"
)

// File is a file that a queue has registered ([Queue.RegisterFile]). A handler that fills
// entries itself ([Request.SQE]) uses its ring.File.
type File struct {
	ring.File
	// Block is the alignment in bytes of the position at which Forward continues after
	// a short result. RegisterFile sets it to 1, or to 4096 for a file with O_DIRECT.
	Block uint32
}

// directBlock is an alignment that suffices for direct I/O on any disk.
const directBlock = 4096

// RegisterFile puts a file in the ring's file table, where it stays until UnregisterFile or the end
// of the queue. The caller may close its descriptor. The error for more files than Options.Files
// wraps ENFILE.
func (q *Queue) RegisterFile(fd int) (File, error) {
	if len(q.freeFiles) == 0 && q.files == q.thread.kind.files {
		return File{}, fmt.Errorf("register a file of queue %d: %w", q.id, unix.ENFILE)
	}
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		return File{}, fmt.Errorf("register a file of queue %d: %w", q.id, err)
	}
	slot, last := uint32(q.firstFile()+q.files), len(q.freeFiles)-1
	if last >= 0 {
		slot = q.freeFiles[last]
	}
	if err := q.thread.ring.UpdateFile(slot, int32(fd)); err != nil {
		return File{}, err
	}
	if last >= 0 {
		q.freeFiles = q.freeFiles[:last]
	} else {
		q.files++
	}
	file := File{ring.FixedFile(slot), 1}
	if flags&unix.O_DIRECT != 0 {
		file.Block = directBlock
	}
	return file, nil
}

// UnregisterFile removes a file of RegisterFile. No operation works on it.
func (q *Queue) UnregisterFile(f File) error {
	slot := f.Slot()
	if err := q.thread.ring.UpdateFile(slot, -1); err != nil {
		return fmt.Errorf("unregister a file of queue %d: %w", q.id, err)
	}
	q.freeFiles = append(q.freeFiles, slot)
	return nil
}

// forward is the progress of a request's read or write of a file.
type forward struct {
	file      File
	off       uint64 // position of the request's first byte in the file
	done      uint32 // bytes that the kernel has read or written
	onWorker  bool   // the ring's worker threads do the rest
	completes bool   // the result completes the request
}

// Forward makes the kernel carry out a read or write of all the request's bytes, at byte
// off of a file. An FUA write is on the medium at its end. Forward continues after a short
// result, EINTR and EAGAIN. It calls [Completer.Done] once, with 0 for success or a negated
// errno.
func (req *Request) Forward(file File, off uint64) {
	if !req.Op.HasData() {
		req.Complete(unix.EOPNOTSUPP)
		return
	}
	req.forward = forward{file: file, off: off}
	req.sendForward(0)
}

// ForwardAndComplete is Forward, but completes the request with the result and does not call
// Done. It is faster, because the kernel completes the request without a turn of the queue's
// thread. One request in 128 does take a turn, so that it is timed ([OpStats]).
func (req *Request) ForwardAndComplete(file File, off uint64) {
	if !req.Op.HasData() {
		req.Complete(unix.EOPNOTSUPP)
		return
	}
	req.forward = forward{file: file, off: off, completes: true}
	if !req.q.mayLink(req) || !req.q.thread.ring.HasSpace(2) {
		req.sendForward(0)
		return
	}
	// The kernel takes both entries in one submit, or the ring fails with
	// ring.ErrLinkCut. A short result breaks the link like an error, and cancels the
	// commit. The canceled commit has no completion, like a successful one
	// (io_uring_enter(2); req_set_fail in io_uring/io_uring.h).
	req.sendForward(ring.IOSQE_IO_LINK | ring.IOSQE_CQE_SKIP_SUCCESS)
	req.begun = 0
	req.q.commit(req, int32(req.Bytes()))
	req.state = stateLinked
}

// sendForward sends the read or write of the rest.
func (req *Request) sendForward(flags uint8) {
	f := &req.forward
	addr, index := req.Buffer(f.done)
	n, off := uint32(req.Bytes())-f.done, f.off+uint64(f.done)
	sqe := req.q.thread.sqe()
	if req.Op == OpRead {
		sqe.PrepReadFixed(f.file.File, addr, n, off, index)
	} else {
		var rwFlags uint32
		if req.Flags&FlagFUA != 0 {
			rwFlags = unix.RWF_DSYNC
		}
		sqe.PrepWriteFixed(f.file.File, addr, n, off, index, rwFlags)
	}
	sqe.UserData = req.q.userData(kindForward, req.tag)
	sqe.Flags |= flags
	if f.onWorker {
		sqe.Flags |= ring.IOSQE_ASYNC
	}
}

// forwarded handles the result of an entry of sendForward. After EAGAIN, one of the ring's
// worker threads does the rest, because it can wait.
func (q *Queue) forwarded(req *Request, res int32) {
	f := &req.forward
	switch {
	case res >= 0:
		q.forwardedBytes(req, uint32(res))
	case res == -int32(unix.EINTR):
		req.sendAgain()
	case res == -int32(unix.EAGAIN) && !f.onWorker:
		f.onWorker = true
		req.sendAgain()
	default:
		q.endForward(req, res)
	}
}

// forwardedBytes handles a number of bytes, which may be too low.
func (q *Queue) forwardedBytes(req *Request, n uint32) {
	f := &req.forward
	done := f.done + n
	if uint64(done) == req.Bytes() {
		q.endForward(req, 0)
		return
	}
	done -= done % max(f.file.Block, 1)
	if done <= f.done {
		// The file has no more bytes there, because it was truncated.
		q.endForward(req, -int32(unix.EIO))
		return
	}
	f.done = done
	req.sendAgain()
}

func (req *Request) sendAgain() {
	req.Retried()
	req.sendForward(0)
}

// endForward ends the forwarding of a request with 0 or a negated errno.
func (q *Queue) endForward(req *Request, errno int32) {
	if req.forward.completes {
		req.CompleteErrno(errno)
		return
	}
	q.done.Done(req, errno)
}
