package ublk

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ring"
	"github.com/ublk-loop/ublk-loop/ublk/uapi"
)

// Op is the operation of a request.
type Op uint8

// The operations of a device that is not zoned (linux/ublk_cmd.h).
const (
	OpRead        Op = uapi.UBLK_IO_OP_READ
	OpWrite       Op = uapi.UBLK_IO_OP_WRITE
	OpFlush       Op = uapi.UBLK_IO_OP_FLUSH
	OpDiscard     Op = uapi.UBLK_IO_OP_DISCARD
	OpWriteZeroes Op = uapi.UBLK_IO_OP_WRITE_ZEROES
)

// String returns the operation's name.
func (op Op) String() string {
	switch op {
	case OpRead:
		return "read"
	case OpWrite:
		return "write"
	case OpFlush:
		return "flush"
	case OpDiscard:
		return "discard"
	case OpWriteZeroes:
		return "write-zeroes"
	}
	return fmt.Sprintf("operation %d", uint8(op))
}

// HasData reports whether requests of the operation have a buffer.
func (op Op) HasData() bool { return op == OpRead || op == OpWrite }

// Flags modify a request. They have the kernel's bit positions in the descriptor's op_flags,
// where bits 0 to 7 are the operation.
type Flags uint32

// The flags that a handler must obey. The others are hints.
const (
	FlagFUA     Flags = uapi.UBLK_IO_F_FUA     // the write is on the medium when the request completes
	FlagNoUnmap Flags = uapi.UBLK_IO_F_NOUNMAP // write zeroes, and keep the space allocated
)

// flagNeedRegister is set if the driver could not register a request's pages.
const flagNeedRegister Flags = uapi.UBLK_IO_F_NEED_REG_BUF

// requestState says who has a request.
//
//	driver -> handler -> driver                       Complete
//	          handler -> linked -> driver             the kernel completes it
//	                     linked -> broken -> driver   the link breaks: the queue completes it
//	          handler -> async -> handler -> driver   another goroutine completes it
type requestState uint8

const (
	stateDriver  requestState = iota // its tag is fetched
	stateHandler                     // the handler has it, or an operation of the handler
	stateLinked                      // its commit is in the ring, linked to the read or write
	stateBroken                      // the queue has it again, and has counted it already
	stateAsync                       // another goroutine has it ([Request.Async])
)

// Request is one request of the block layer. It is valid from the call of [Handler.Handle]
// until Complete. Only the queue's thread may call its methods. [Request.Async] gives the
// request to other goroutines.
type Request struct {
	Op          Op
	Flags       Flags
	Sectors     uint32 // 512 bytes each; the range of a discard can be 2 TiB
	StartSector uint64

	q        *Queue
	tag      uint16
	bufIndex uint16
	// byCommand says that a command has registered the pages, so that another command
	// must unregister them.
	byCommand bool
	forward   forward
	state     requestState
	begun     time.Duration // when it came, on its thread's clock; 0 if it is not timed
}

// decode reads a request's descriptor. Nothing else does, and it reads each word once.
func (req *Request) decode(d *uapi.IODesc) {
	word := d.OpFlags
	req.Op = Op(word & 0xff)
	req.Flags = Flags(word &^ 0xff)
	req.Sectors = d.NrSectors
	req.StartSector = d.StartSector
}

// Tag returns the request's number in its queue, from 0 to the queue's depth - 1. No other
// request of the queue has the same number at the same time.
func (req *Request) Tag() int { return int(req.tag) }

// Offset returns where the request starts, in bytes.
func (req *Request) Offset() uint64 { return req.StartSector << sectorShift }

// Bytes returns how long the request is, in bytes.
func (req *Request) Bytes() uint64 { return uint64(req.Sectors) << sectorShift }

// Data returns the request's buffer in copy mode. For a write it has the bytes to write. For a
// read the handler fills it. Data returns nil in the zero-copy modes and for requests without
// data.
func (req *Request) Data() []byte {
	if !req.Op.HasData() {
		return nil
	}
	buf := req.q.bufs.of(req.tag)
	if buf == nil {
		return nil
	}
	return buf[:req.Bytes()]
}

// CanRead reports whether [Request.ReadData] works: in copy mode, and in the zero-copy modes if
// Options.Features has UBLK_F_USER_COPY.
func (q *Queue) CanRead() bool {
	return !q.mode.ZeroCopy() || q.dev.info.Features.Has(uapi.UBLK_F_USER_COPY)
}

// ReadData copies the bytes of a write from byte off on. In the zero-copy modes it takes a
// system call, which does not block (ublk_ch_read_iter in drivers/block/ublk_drv.c). So it is
// for a few bytes that have to be in one buffer with others.
func (req *Request) ReadData(b []byte, off uint64) error {
	if data := req.Data(); data != nil {
		copy(b, data[off:])
		return nil
	}
	at := uapi.UBLKSRV_IO_BUF_OFFSET + int64(off) + int64(req.tag)<<uapi.UBLK_TAG_OFF + int64(req.q.id)<<uapi.UBLK_QID_OFF
	for len(b) > 0 {
		n, err := unix.Pread(req.q.dev.charFD, b, at)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return err
		case n == 0:
			return unix.EIO
		default:
			b, at = b[n:], at+int64(n)
		}
	}
	return nil
}

// Buffer returns the address and the registered buffer's index with which a _FIXED operation
// of the queue's ring reaches the request's bytes from byte off on. It works in every mode.
// [Request.Forward] calls it itself.
func (req *Request) Buffer(off uint32) (addr uint64, index uint16) {
	return req.q.bufs.address(req.tag) + uint64(off), req.bufIndex
}

// SQE returns an entry of the queue's ring, which is zero except for its user_data. The
// handler fills it, and must not change user_data or the link flags. [Completer.Done]
// receives the entry's result with this request.
func (req *Request) SQE() *ring.SQE {
	sqe := req.q.thread.sqe()
	sqe.UserData = req.q.userData(kindTarget, req.tag)
	return sqe
}

// partShift is the position of the number of a part in the kind of an entry.
const partShift = 16

// PartSQE is SQE for one of several operations that a request has in flight at once.
// [PartCompleter.PartDone] receives the result with the number of the part, which is below 65535.
// A number of a request can be used again after its result. A queue has at most
// Options.ExtraParts parts in flight beside one of each request.
func (req *Request) PartSQE(part int) *ring.SQE {
	sqe := req.q.thread.sqe()
	sqe.UserData = req.q.userData(kindPart|uint64(part+1)<<partShift, req.tag)
	return sqe
}

// leaveHandler takes the request from the handler. If the handler does not have the request,
// the device ends with an error, because the tag may belong to another request.
func (req *Request) leaveHandler(to requestState) bool {
	if req.state != stateHandler && req.state != stateBroken {
		req.notTheHandlers()
		return false
	}
	req.state = to
	return true
}

func (req *Request) notTheHandlers() {
	req.q.thread.broken = fmt.Errorf("complete tag %d: %w", req.tag, ErrCompleted)
}

// Retried counts a repeated operation of the request.
func (req *Request) Retried() { req.q.counters.retries.Add(1) }

// Worked reports that the handler has spent time on the request's bytes. The next duration
// in this turn is measured with a new look at the clock.
func (req *Request) Worked() { req.q.thread.clock = 0 }

// Complete ends the request, and frees its tag for another. nil means that all of the request
// is done. With an error, the user of the disk gets the errno that the error wraps, or EIO if
// it wraps none ([Result]).
func (req *Request) Complete(err error) {
	if err != nil {
		req.CompleteErrno(Result(err))
		return
	}
	req.CompleteErrno(0)
}

// CompleteErrno is Complete with 0 for success or a negated errno. A part of a request has no
// result of its own, because in the zero-copy modes the driver takes a short count for
// success.
func (req *Request) CompleteErrno(errno int32) {
	result := errno
	if errno == 0 && req.Op.HasData() {
		result = int32(req.Sectors << sectorShift)
	}
	req.q.commit(req, result)
}
