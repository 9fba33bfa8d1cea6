package ublk

import (
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ring"
)

// workersOf is how many worker threads of a ring carry out a queue's operations
// on files and disks at most: four a CPU, as is the kernel's measure for a
// thread (io_wq_create in io_uring/io-wq.c), and no more than there are entries.
func workersOf(depth int) int { return min(2*depth, 4*runtime.NumCPU()) }

// entriesOf is how many entries a queue has in flight at most: two a tag, submitted
// together, and those that worker threads carry out. A worker lets go of an entry only
// some time after its completion (io_wq_free_work in io_uring/io_uring.c), when the tag
// may have its next two already.
//
// The kernel has the memory for all of them before the device starts (Ring.Reserve).
// With too little it could take the first entry of a link without the second, which
// would then wait for nothing: the ring ends with ErrLinkCut.
func entriesOf(depth int) int { return 2*depth + workersOf(depth) }

// newRing makes the ring. The entry that waits for wakeFD has its memory before
// the others' is reserved.
func (t *thread) newRing() error {
	entries := uint32(len(t.slots) * entriesOf(t.kind.depth))
	r, err := ring.New(ring.Options{
		Entries:      entries,
		CQEntries:    entries + 1,
		SingleIssuer: true,
	})
	if err != nil {
		return err
	}
	t.ring = r
	// Until Linux 6.14 a command that waits behind another entry is read when
	// its turn comes, from where other entries have been put by then
	// (io_uring_cmd_prep_setup in io_uring/uring_cmd.c). This feature came with
	// the release after.
	t.linkable = r.Features()&ring.IORING_FEAT_NO_IOWAIT != 0
	// An older kernel finds the ring by its descriptor, a little slower.
	if err := r.RegisterRingFD(); err != nil && !errors.Is(err, unix.EINVAL) {
		return err
	}
	t.armWake()
	if err := r.Submit(); err != nil {
		return err
	}
	return r.Reserve(entries)
}

// maxFiles is the number of slots that a queue has in the file table. The
// character device is not in it: a reference there outlives the ring's close,
// and the device's deletion waits for it.
const maxFiles = 8

// newTables registers tables with room for each queue's files and buffers, and
// has the kernel's worker threads be as many as these queues would have had on
// threads of their own.
func (t *thread) newTables() error {
	n := len(t.slots)
	files := make([]int32, n*maxFiles)
	for i := range files {
		files[i] = -1
	}
	if err := t.ring.RegisterFiles(files); err != nil {
		return err
	}
	if err := t.ring.RegisterBuffersSparse(uint32(n * bufferSlots(t.kind.mode, t.kind.depth))); err != nil {
		return err
	}
	if n == 1 {
		return nil
	}
	_, _, err := t.ring.RegisterIOWQMaxWorkers(uint32(n*workersOf(t.kind.depth)), 0)
	return err
}

// armWake makes the ring wait for wakeFD, too.
func (t *thread) armWake() {
	sqe := t.sqe()
	sqe.PrepPollAdd(ring.FD(t.wakeFD), unix.POLLIN)
	sqe.UserData = kindWake << 32
}

// sqe returns a free entry. When the ring is full it first hands over what is
// there: the kernel takes all of it, so there is room then. Where it does not,
// the ring is broken and serve ends; until then the entry is one that goes
// nowhere.
func (t *thread) sqe() *ring.SQE {
	if sqe := t.ring.GetSQE(); sqe != nil {
		return sqe
	}
	if err := t.ring.Submit(); err != nil {
		t.broken = fmt.Errorf("submit: %w", err)
	} else if sqe := t.ring.GetSQE(); sqe != nil {
		return sqe
	} else {
		t.broken = fmt.Errorf("submit: %w", unix.ENOSPC)
	}
	t.spare = ring.SQE{}
	return &t.spare
}

// room makes room in the ring for n entries that must be submitted together.
func (t *thread) room(n uint32) {
	if t.ring.HasSpace(n) {
		return
	}
	if err := t.ring.Submit(); err != nil {
		t.broken = fmt.Errorf("submit: %w", err)
	}
}
