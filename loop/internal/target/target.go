// Package target answers the requests of a device from its backing. Each request becomes a
// chain of ring operations, one after another, without a goroutine or an allocation.
package target

import (
	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/loop/internal/backing"
	"github.com/ublk-loop/ublk-loop/ring"
	"github.com/ublk-loop/ublk-loop/transfer"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// Target answers a device's requests from its backing.
type Target struct {
	Backing  *backing.Backing
	Transfer transfer.Transfer // nil for none

	failures backing.Failures // of all queues
}

// NewHandler implements ublk.Target.
func (t *Target) NewHandler(q *ublk.Queue) (ublk.Handler, error) {
	file, err := q.RegisterFile(t.Backing.FD)
	if err != nil {
		return nil, err
	}
	if t.Backing.Lock != nil {
		// A ring outlives its process until its last operation has ended, and the lock with it.
		if _, err := q.RegisterFile(t.Backing.Lock.RingFD()); err != nil {
			return nil, err
		}
	}
	if t.Backing.Direct {
		file.Block = t.Backing.SectorSize
	}
	return &handler{
		file: file, backing: t.Backing, failures: &t.failures, offset: t.Backing.Offset, isDisk: t.Backing.IsDisk, readOnly: t.Backing.ReadOnly,
		transfer: t.Transfer, tags: make([]progress, q.Depth()),
	}, nil
}

// handler serves one queue.
type handler struct {
	file     ublk.File // the backing file
	backing  *backing.Backing
	failures *backing.Failures
	offset   uint64 // start of the device in the backing file
	isDisk   bool
	readOnly bool
	transfer transfer.Transfer // nil for none
	tags     []progress
}

var _ ublk.Completer = (*handler)(nil)

// progress is the state of a tag's request.
type progress struct {
	step     step
	onWorker bool   // a discard that only a worker thread can do
	seen     uint64 // for failures, of a flush or a request with FUA
}

// step is the operation that a request waits for.
type step uint8

const (
	stepRead     step = iota // a read that must be decrypted
	stepWrite                // a write with FUA that includes a flush
	stepRange                // a discard or write-zeroes
	stepPunch                // the hole before an allocation
	stepAllocate             // the allocation of a hole's space
	stepSync                 // an fdatasync, the last step
)

// Handle implements ublk.Handler.
func (h *handler) Handle(req *ublk.Request) {
	switch req.Op {
	case ublk.OpRead:
		h.read(req)
	case ublk.OpWrite:
		h.write(req)
	case ublk.OpFlush:
		h.look(req)
		h.sync(req)
	case ublk.OpDiscard:
		h.tags[req.Tag()] = progress{}
		h.look(req)
		h.discard(req)
	case ublk.OpWriteZeroes:
		h.look(req)
		h.writeZeroes(req)
	default:
		req.Complete(unix.EOPNOTSUPP)
	}
}

// Done implements ublk.Completer.
func (h *handler) Done(req *ublk.Request, res int32) {
	switch h.tags[req.Tag()].step {
	case stepRead:
		h.readDone(req, res)
	case stepWrite:
		h.writeDone(req, res)
	case stepSync:
		h.syncDone(req, res)
	default:
		h.rangeDone(req, res)
	}
}

// sqe returns an entry for the request's next step.
func (h *handler) sqe(req *ublk.Request, s step) *ring.SQE {
	h.tags[req.Tag()].step = s
	return req.SQE()
}

// position returns the request's start in the backing file, in bytes.
func (h *handler) position(req *ublk.Request) uint64 { return h.offset + req.Offset() }
