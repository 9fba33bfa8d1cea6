package ublk

import (
	"fmt"
	"time"

	"github.com/ublk-loop/ublk-loop/ring"
	"github.com/ublk-loop/ublk-loop/ublk/uapi"
)

// Op is what a request wants.
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

// Flags modify a request. They keep the kernel's bit positions in the
// descriptor's op_flags, in which bits 0 to 7 are the operation.
type Flags uint32

// The flags that a handler may act on; the others are hints.
const (
	FlagFUA     Flags = uapi.UBLK_IO_F_FUA     // on the medium before it completes
	FlagNoUnmap Flags = uapi.UBLK_IO_F_NOUNMAP // write zeroes, and keep the space allocated
)

// flagNeedRegister says that the driver could not register a request's pages.
const flagNeedRegister Flags = uapi.UBLK_IO_F_NEED_REG_BUF

// requestState is who has a request.
//
//	driver -> handler -> driver                          Complete
//	          handler -> linked -> driver                the kernel completes it
//	                     linked -> broken -> driver      its link breaks: Complete after all
//	          handler -> async -> handler -> driver      another goroutine completes it
type requestState uint8

const (
	stateDriver  requestState = iota // its tag is armed
	stateHandler                     // the handler, or an operation that its result goes to
	stateLinked                      // its commit is in the ring, behind the entry of forward
	stateBroken                      // the handler's again, and counted already
	stateAsync                       // [Request.Async]
)

// Request is one request of the block layer, valid from the call of
// [Handler.Handle] until Complete. Its methods are called on the queue's
// thread only; [Request.Async] is for other goroutines.
type Request struct {
	Op          Op
	Flags       Flags
	Sectors     uint32 // 512 bytes each; the range of a discard can be 2 TiB
	StartSector uint64

	q        *Queue
	tag      uint16
	bufIndex uint16
	// byCommand: a command has put its pages in the ring's table, and another is
	// to take them out.
	byCommand bool
	forward   forward
	state     requestState
	begun     time.Duration // when it came, by its thread's clock; 0 if it is not timed
}

// decode reads a request's descriptor, once, and is the only place that does.
func (req *Request) decode(d *uapi.IODesc) {
	word := d.OpFlags
	req.Op = Op(word & 0xff)
	req.Flags = Flags(word &^ 0xff)
	req.Sectors = d.NrSectors
	req.StartSector = d.StartSector
}

// Tag returns the request's number in its queue, below the queue's depth. No
// other request has it at the same time.
func (req *Request) Tag() int { return int(req.tag) }

// Offset returns where the request starts, in bytes.
func (req *Request) Offset() uint64 { return req.StartSector << sectorShift }

// Bytes returns how long the request is, in bytes.
func (req *Request) Bytes() uint64 { return uint64(req.Sectors) << sectorShift }

// Data returns the request's buffer in copy mode: for a write the bytes to be
// written, for a read the room for those read. It is nil in the zero-copy
// modes and for requests without data.
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

// Buffer returns what a _FIXED operation of the queue's ring takes to reach the
// request's bytes from byte off on: an address and the index of a registered
// buffer. It is the same in every mode. [Request.Forward] needs no Buffer.
func (req *Request) Buffer(off uint32) (addr uint64, index uint16) {
	return req.q.bufs.address(req.tag) + uint64(off), req.bufIndex
}

// SQE returns an entry of the queue's ring, all zero but for its user_data:
// its completion is given to [Completer.Done] with this request. The handler
// fills it and leaves user_data and the link flags alone.
func (req *Request) SQE() *ring.SQE {
	sqe := req.q.thread.sqe()
	sqe.UserData = req.q.userData(kindTarget, req.tag)
	return sqe
}

// leaveHandler takes the request from the handler. A request that the handler does
// not have ends the device: what is done to it would be done to another one.
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

// Retried counts that a part of the request is done again.
func (req *Request) Retried() { req.q.counters.retries.Add(1) }

// Worked says that the handler has spent time of its own on the request's
// bytes, so that what ends in this turn ends later than it began.
func (req *Request) Worked() { req.q.thread.clock = 0 }

// Complete ends the request and makes its tag ready for another: nil says that
// all of it is done, an error that it is not. The caller gets the errno that the
// error wraps, EIO if it wraps none ([Result]).
func (req *Request) Complete(err error) {
	if err != nil {
		req.CompleteErrno(Result(err))
		return
	}
	req.CompleteErrno(0)
}

// CompleteErrno is Complete with 0 for success or a negated errno. There is no
// result for a part of a request: the driver takes a short count for success
// in the zero-copy modes.
func (req *Request) CompleteErrno(errno int32) {
	result := errno
	if errno == 0 && req.Op.HasData() {
		result = int32(req.Sectors << sectorShift)
	}
	req.q.commit(req, result)
}
