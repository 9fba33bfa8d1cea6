package ring

import (
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ErrOverflow is returned by functions that enter the kernel if the completion
// queue was full and completions may be late or lost. The ring was too small
// for the operations in flight. This is a bug, and the ring cannot be used
// after it.
var ErrOverflow = errors.New("io_uring completion queue overflow")

// ErrLinkCut is returned by functions that enter the kernel if it takes an entry
// without the next entry of the same link, because it has no memory
// ([Ring.Reserve]), or because the caller submits an incomplete link. The next
// entry would then not wait. The ring cannot be used after it.
var ErrLinkCut = errors.New("io_uring takes a link in two parts")

// submissionQueue is the writer's side of the SQ. Entries from sqeHead to
// sqeTail are filled and not yet published.
type submissionQueue struct {
	kHead, kTail, kFlags *atomic.Uint32

	sqes             []SQE
	mask, entries    uint32
	shift            uint32 // 1 for entries of 128 bytes, which take two elements of sqes
	sqeHead, sqeTail uint32
	taken            uint32 // last value read from kHead
}

func (sq *submissionQueue) init(m *mappings, p *ioUringParams) {
	sq.kHead = word(m.sqRing, p.SqOff.Head)
	sq.kTail = word(m.sqRing, p.SqOff.Tail)
	sq.kFlags = word(m.sqRing, p.SqOff.Flags)
	sq.entries = p.SqEntries
	sq.mask = p.SqEntries - 1
	if p.Flags&IORING_SETUP_SQE128 != 0 {
		sq.shift = 1
	}
	sq.sqes = array[SQE](m.sqes, 0, p.SqEntries<<sq.shift)
	if p.Flags&IORING_SETUP_NO_SQARRAY == 0 {
		// The indirection array is filled once: each slot has its own index.
		for i, slots := 0, array[uint32](m.sqRing, p.SqOff.Array, p.SqEntries); i < len(slots); i++ {
			slots[i] = uint32(i)
		}
	}
}

// GetSQE returns the next free entry, all zero, or nil if the queue is full;
// then submit first. The caller can fill the entry until the next call that
// enters the kernel. That call submits the entry, filled or not.
func (r *Ring) GetSQE() *SQE {
	if !r.HasSpace(1) {
		return nil
	}
	sq := &r.sq
	i := (sq.sqeTail & sq.mask) << sq.shift
	sqe := &sq.sqes[i]
	*sqe = SQE{}
	if sq.shift != 0 {
		sq.sqes[i+1] = SQE{}
	}
	sq.sqeTail++
	return sqe
}

// Published returns a number that changes when entries are passed to the kernel. As long as it is the
// same, the caller can still change the entries that GetSQE has returned.
func (r *Ring) Published() uint32 { return r.sq.sqeHead }

// Issued returns how many entries GetSQE has returned since the start of the ring, modulo 1<<32.
func (r *Ring) Issued() uint32 { return r.sq.sqeTail }

// HasSpace reports whether GetSQE can return n more entries before a submit.
func (r *Ring) HasSpace(n uint32) bool {
	sq := &r.sq
	if sq.entries-(sq.sqeTail-sq.taken) >= n {
		return true
	}
	return sq.entries-sq.pending() >= n
}

// SQSpace returns how many more entries GetSQE can return before a submit.
func (r *Ring) SQSpace() int { return int(r.sq.entries - r.sq.pending()) }

// pending returns how many entries the kernel has not taken.
//
// Acquire: the kernel has read an entry before it moves the head past it. Only
// after that does GetSQE overwrite the entry.
func (sq *submissionQueue) pending() uint32 {
	sq.taken = sq.kHead.Load()
	return sq.sqeTail - sq.taken
}

// isCut reports whether the kernel cuts a link if the entry before end is the last
// that it takes in one submit.
func (sq *submissionQueue) isCut(end uint32) bool {
	last := &sq.sqes[((end-1)&sq.mask)<<sq.shift]
	return last.Flags&(IOSQE_IO_LINK|IOSQE_IO_HARDLINK) != 0
}

// flush publishes the filled entries and returns how many entries the kernel
// has not taken yet, including those of an earlier short submit.
func (sq *submissionQueue) flush() uint32 {
	if sq.sqeHead != sq.sqeTail {
		sq.sqeHead = sq.sqeTail
		// Release: the kernel sees the entries filled before it sees the tail
		// that covers them (liburing, __io_uring_flush_sq).
		sq.kTail.Store(sq.sqeTail)
	}
	return sq.pending()
}

// Submit passes the filled entries to the kernel without waiting, and runs
// completions that are due. It returns when the kernel has taken all entries.
func (r *Ring) Submit() error {
	return r.submit(0, nil)
}

// SubmitAndWait is Submit, and also waits until n completions are ready.
func (r *Ring) SubmitAndWait(n uint32) error {
	return r.submit(n, nil)
}

// SubmitAndWaitTimeout is SubmitAndWait with a maximum wait of d. After that
// time it returns an error that wraps ETIME (Linux 5.11).
func (r *Ring) SubmitAndWaitTimeout(n uint32, d time.Duration) error {
	w := newWaitTimeout(d)
	defer w.unpin()
	return r.submit(n, w)
}

// submit enters the kernel until it has taken every entry and the wait is over.
// After a short submit the other entries stay published, so the next enter
// submits them. An enter that submits returns the number of entries, not how
// its wait ended, so submit checks whether enough completions are ready.
func (r *Ring) submit(wait uint32, timeout *waitTimeout) error {
	for {
		pending := r.sq.flush()
		if pending > 0 && r.sq.isCut(r.sq.sqeTail) {
			return ErrLinkCut
		}
		n, errno := r.enter(pending, wait, timeout)
		switch errno {
		case 0:
			if n > 0 && n < pending && r.sq.isCut(r.sq.taken+n) {
				return ErrLinkCut
			}
			if n >= pending && r.CQReady() >= wait {
				return r.checkOverflow()
			}
		case unix.EINTR, unix.EAGAIN, unix.EBUSY:
			// EAGAIN and EBUSY mean that there is no memory for a request, or
			// that completions must be reaped first. The caller reaps the ready
			// completions and returns.
			if errno != unix.EINTR && r.CQReady() > 0 {
				return r.checkOverflow()
			}
		case unix.EBADR:
			return ErrOverflow
		default:
			return fmt.Errorf("enter io_uring: %w", errno)
		}
		// Where some completions are there, but fewer than wait, the kernel does
		// not say that the time is over (io_cqring_wait in io_uring/wait.c).
		if timeout.isOver() {
			return fmt.Errorf("enter io_uring: %w", unix.ETIME)
		}
	}
}

// enter is one io_uring_enter(2). It always sets GETEVENTS, because with
// IORING_SETUP_DEFER_TASKRUN nothing else runs completions.
func (r *Ring) enter(pending, wait uint32, timeout *waitTimeout) (uint32, syscall.Errno) {
	flags := r.enterFlags | IORING_ENTER_GETEVENTS
	if timeout != nil {
		timeout.update()
		return ioURingEnter(r.enterFD, pending, wait, flags|IORING_ENTER_EXT_ARG,
			unsafe.Pointer(&timeout.arg), unsafe.Sizeof(timeout.arg))
	}
	return ioURingEnter(r.enterFD, pending, wait, flags, nil, 0)
}

// checkOverflow reports completions that found no room in the queue. The kernel
// keeps them aside and sets a bit in the SQ's flags.
func (r *Ring) checkOverflow() error {
	if r.sq.kFlags.Load()&IORING_SQ_CQ_OVERFLOW != 0 {
		return ErrOverflow
	}
	return nil
}
