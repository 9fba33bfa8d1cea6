package ublk

import (
	"errors"
	"fmt"
	"io"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ring"
)

// workersOf returns the largest number of a ring's worker threads that carry out a queue's
// operations on files and disks: four for each CPU, which is the kernel's limit for a thread
// (io_wq_create in io_uring/io-wq.c), and at most one for each entry of a tag.
func workersOf(depth int) int { return min(2*depth, 4*runtime.NumCPU()) }

// entries returns the largest number of entries that a queue has in flight: two for each tag,
// submitted together, or one for each of its parts, and one for each worker thread. A worker frees an
// entry some time after its completion (io_wq_free_work in io_uring/io_uring.c), when the tag
// may already have its next two entries.
//
// The kernel has the memory for all of them before the device starts (Ring.Reserve). With too
// little memory it could take the first entry of a link without the second, which would then
// not wait for the first. The ring checks each submit for that, and fails with ErrLinkCut.
func (k *threadKind) entries() int { return 2*k.depth + k.extraParts + workersOf(k.depth) }

// newRing makes the ring. The entry that polls wakeFD comes first, so it does not use the
// reserved memory.
func (t *thread) newRing() error {
	entries := uint32(len(t.slots) * t.kind.entries())
	r, err := t.pool.newRing(ring.Options{Entries: entries, CQEntries: entries + 1, SingleIssuer: true})
	if err != nil {
		return err
	}
	t.ring = r
	// Until Linux 6.14 the kernel reads a linked command when the entry before it has
	// ended. By then another entry has taken its place in the queue
	// (io_uring_cmd_prep_setup in io_uring/uring_cmd.c). Linux 6.15 brought this feature.
	t.linkable = r.Features()&ring.IORING_FEAT_NO_IOWAIT != 0
	// On an older kernel each enter finds the ring by its descriptor, a little slower.
	if err := r.RegisterRingFD(); err != nil && !errors.Is(err, unix.EINVAL) {
		return err
	}
	t.armWake()
	if err := r.Submit(); err != nil {
		return err
	}
	return r.Reserve(entries)
}

// newTables registers tables with room for each queue's files and buffers. The character device
// is not in the table: such a reference outlives the close of the ring, and the deletion of the
// device would wait for it. newTables also sets the limit of the kernel's worker threads to the
// sum of what the queues would have on threads of their own.
func (t *thread) newTables() error {
	n := len(t.slots)
	files := make([]int32, n*t.kind.files)
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

// armWake makes the ring poll wakeFD.
func (t *thread) armWake() {
	sqe := t.sqe()
	sqe.PrepPollAdd(ring.FD(t.wakeFD), unix.POLLIN)
	sqe.UserData = kindWake << 32
}

// sqe returns a free entry. If the ring is full, sqe submits its entries first, which makes
// room, because the kernel takes all of them. If it does not, the ring is broken, serve ends
// with an error, and sqe returns an entry that is never submitted.
func (t *thread) sqe() *ring.SQE {
	if sqe := t.ring.GetSQE(); sqe != nil {
		return sqe
	}
	err := t.ring.Submit()
	if err == nil {
		if sqe := t.ring.GetSQE(); sqe != nil {
			return sqe
		}
		err = unix.ENOSPC
	}
	t.broken = fmt.Errorf("submit: %w", err)
	t.spare = ring.SQE{}
	return &t.spare
}

// room makes room in the ring for n entries that must be in one submit.
func (t *thread) room(n uint32) {
	if t.ring.HasSpace(n) {
		return
	}
	if err := t.ring.Submit(); err != nil {
		t.broken = fmt.Errorf("submit: %w", err)
	}
}

// Shared returns what the handlers on the queue's thread have in common under a key, such as
// buffers of which few are needed at once. The first call for a key makes it, for at most as
// many queues as the thread has room for. It is closed when the thread has ended in order.
// Otherwise operations of the ring may still use it. Only [Target.NewHandler] and functions of
// [Device.OnThreads] may call Shared.
func (q *Queue) Shared(key any, newValue func(queues int) (io.Closer, error)) (io.Closer, error) {
	t := q.thread
	if value, found := t.shared[key]; found {
		return value, nil
	}
	value, err := newValue(len(t.queues))
	if err != nil {
		return nil, err
	}
	if t.shared == nil {
		t.shared = map[any]io.Closer{}
	}
	t.shared[key] = value
	return value, nil
}

func (t *thread) closeShared() {
	for _, value := range t.shared {
		_ = value.Close()
	}
}

// Before Linux 7.0 the driver has no flag against the partition scan of a new disk. Up to
// 6.18 the scan is part of START_DEV: a worker thread of the server reads from the disk and
// holds the device's lock. A server that is killed during the scan can hang for good. But
// the driver does not scan the disk of a server that it does not trust, and it trusts a task
// only if the task has CAP_SYS_ADMIN when it fetches (ublk_mark_io_ready in
// drivers/block/ublk_drv.c).

// loseTrust drops CAP_SYS_ADMIN from the calling thread, and from no other thread. A queue
// does not need it from its first fetch on.
func loseTrust() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData // capabilities 0 to 31, and 32 to 63
	if err := unix.Capget(&header, &sets[0]); err != nil {
		return fmt.Errorf("get capabilities: %w", err)
	}
	const admin = uint32(1) << unix.CAP_SYS_ADMIN
	sets[0].Effective &^= admin
	sets[0].Permitted &^= admin
	sets[0].Inheritable &^= admin
	if err := unix.Capset(&header, &sets[0]); err != nil {
		return fmt.Errorf("set capabilities: %w", err)
	}
	return nil
}

// threadSignals are the signals that a thread with queues still takes: those that its own instructions
// raise, which the kernel does not leave blocked anyway (force_sig_info_to_task in kernel/signal.c), and the
// one with which Go runs a system call in all threads (sigPerThreadSyscall in runtime/os_linux.go), which waits
// for an answer.
var threadSignals = [...]unix.Signal{
	unix.SIGBUS, unix.SIGFPE, unix.SIGILL, unix.SIGSEGV, unix.SIGSYS, unix.SIGTRAP, unix.Signal(33),
}

// blockSignals blocks the other signals in the calling thread. When a signal arrives, the kernel writes the
// processor's registers to a stack of Go's runtime, in ordinary memory (rt_sigframe in
// arch/x86/kernel/signal.c). Handlers that encrypt have keys in registers, and nothing would wipe
// them there. Go's runtime sends a signal to preempt a goroutine (SIGURG); without it the goroutine ends its
// turn at its next call of a function.
func blockSignals() error {
	var set unix.Sigset_t
	for i := range set.Val {
		set.Val[i] = ^set.Val[i]
	}
	for _, s := range threadSignals {
		bit := uint(s - 1)
		set.Val[bit/wordBits] &^= 1 << (bit % wordBits)
	}
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &set, nil); err != nil {
		return fmt.Errorf("block signals: %w", err)
	}
	return nil
}

// wordBits is the number of signals in a word of a set of signals, on all 64-bit processors.
const wordBits = 64
