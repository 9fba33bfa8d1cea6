package ublk

import (
	"fmt"
	"io"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ring"
)

// thread is a thread of the operating system with a ring, and the queues that it serves. It
// uses the fields without a comment on protection alone.
type thread struct {
	pool  *Threads
	kind  threadKind
	slots []bool // true if a queue has the slot, or will have it; protected by pool.mu

	jobs   chan func() // functions that other goroutines call here
	killed atomic.Bool // the thread must end at once
	ended  chan struct{}
	err    error // why it ended; read it after ended is closed
	// wakeMu protects wakeFD, an eventfd that the ring polls. A write to it makes the
	// thread look at jobs, killed and results. It is -1 after the thread's end.
	wakeMu sync.Mutex
	wakeFD int

	ring     *ring.Ring
	queues   []*Queue          // by slot, nil for a free one
	shared   map[any]io.Closer // Queue.Shared
	current  *Queue            // the queue of the last completion, or nil
	linkable bool              // the kernel keeps the content of a linked command
	woken    bool              // wakeFD was written to
	leaving  bool              // its last queue has ended
	broken   error             // why the thread cannot go on
	spare    ring.SQE          // the entry that sqe returns then

	epoch   time.Time     // the thread's start
	clock   time.Duration // time of this turn since epoch; 0 before a look at the clock
	handled uint32        // completions since mustYield looked at the clock
	yielded time.Duration // time of the last yield since epoch
}

// threadKind is what queues that share a thread have in common.
type threadKind struct {
	cpus       cpuMask // the driver sends their requests to the queue
	depth      int
	mode       BufferMode
	files      int // of a queue
	extraParts int // of a queue
	// untrusted says that the driver must not trust the thread (loseTrust).
	untrusted bool
}

// newThread returns a thread with room for a number of queues. run starts it.
func newThread(pool *Threads, kind threadKind, slots int) (*thread, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("make eventfd: %w", err)
	}
	return &thread{
		pool: pool, kind: kind, slots: make([]bool, slots), queues: make([]*Queue, slots),
		jobs: make(chan func(), 1), ended: make(chan struct{}), wakeFD: fd,
	}, nil
}

// run is the thread, from its set-up to the end of its last queue. Threads.take starts it.
// Each queue and each caller of do learns of its end.
func (t *thread) run() {
	// The driver binds each tag to the task that fetched it, and the kernel ends a task's
	// commands with the task. The goroutine never unlocks the thread, so Go ends the
	// thread with the goroutine, and no other goroutine gets its affinity.
	runtime.LockOSThread()
	t.epoch = time.Now()
	err := t.setUp()
	if err == nil {
		err = t.serve()
	}
	t.end(err)
}

// setUp makes everything that the thread needs before its first queue.
func (t *thread) setUp() error {
	if err := blockSignals(); err != nil {
		return err
	}
	if err := t.kind.cpus.pin(); err != nil {
		return err
	}
	if err := t.newRing(); err != nil {
		return err
	}
	if err := t.newTables(); err != nil {
		return err
	}
	if t.kind.untrusted {
		return loseTrust()
	}
	return nil
}

// wake makes the thread look at jobs, killed and results.
func (t *thread) wake() {
	t.wakeMu.Lock()
	defer t.wakeMu.Unlock()
	one := [8]byte{1} // not 0 in any byte order
	_, _ = unix.Write(t.wakeFD, one[:])
}

// kill makes the thread end at once, without an answer to the requests of its queues.
func (t *thread) kill() {
	t.killed.Store(true)
	t.wake()
}

// do makes the thread call a function, and returns its result. If the thread has ended, it
// returns why.
func (t *thread) do(f func() error) error {
	reply := make(chan error, 1)
	select {
	case t.jobs <- func() { reply <- f() }:
	case <-t.ended:
		return t.endError()
	}
	t.wake()
	select {
	case err := <-reply:
		return err
	case <-t.ended:
	}
	select {
	case err := <-reply:
		return err
	default:
		return t.endError()
	}
}

// endError returns the error of do for a thread that has ended.
func (t *thread) endError() error {
	if t.err == nil {
		return ErrKilled
	}
	return t.err
}

// yieldEvery is how often a busy thread yields to Go's scheduler. If a goroutine does not
// yield for 10 ms, the runtime's monitor preempts it from then on at each system call, 50,000
// times a second. At queue depth 1 that costs an eighth of the speed. A yield wakes another
// thread, so the thread does not yield in every turn. A look at the clock costs time too, so
// the thread looks every clockAfter completions.
const (
	yieldEvery = 5 * time.Millisecond
	clockAfter = 64 // completions
)

// serve answers requests until the last queue has ended, or until kill.
func (t *thread) serve() error {
	for !t.leaving {
		if err := t.ring.SubmitAndWait(1); err != nil {
			return err
		}
		t.clock = 0
		n := t.ring.CQReady()
		for i := range n {
			cqe := t.ring.CQE(i)
			if err := t.complete(cqe.UserData, cqe.Res); err != nil {
				return err
			}
		}
		t.ring.CQAdvance(n)
		if t.current != nil {
			t.current.endTurn()
		}
		if t.woken {
			if err := t.look(); err != nil {
				return err
			}
		}
		if t.mustYield(n) {
			runtime.Gosched()
		}
		if t.broken != nil {
			return t.broken
		}
	}
	return nil
}

// mustYield reports whether the thread must yield after n more completions.
func (t *thread) mustYield(n uint32) bool {
	if t.handled += n; t.handled < clockAfter {
		return false
	}
	t.handled = 0
	now := t.now()
	if now-t.yielded < yieldEvery {
		return false
	}
	t.yielded = now
	return true
}

// The kind of an entry. It is the high half of the user_data. The low half is the queue's slot
// and the tag, of 16 bits each.
const (
	kindFetch = iota
	kindTarget
	kindForward
	kindRegister
	kindUnregister
	kindWake
	kindPart // above its low 16 bits: the number of the part, from 1
)

// complete handles one completion.
func (t *thread) complete(data uint64, res int32) error {
	if data>>32 == kindWake {
		t.woken = true
		return nil
	}
	q := t.queues[uint16(data>>16)]
	if q != t.current {
		if t.current != nil {
			t.current.endTurn()
		}
		t.current = q
	}
	return q.complete(data>>32, &q.reqs[uint16(data)], res)
}

// look does what other goroutines want done, after a wake.
func (t *thread) look() error {
	var count [8]byte
	_, _ = unix.Read(t.wakeFD, count[:]) // a later wake makes a new event
	t.woken = false
	if t.killed.Load() {
		return ErrKilled
	}
	t.armWake()
	for _, q := range t.queues {
		if q != nil {
			q.takeAsync()
		}
	}
	for {
		select {
		case job := <-t.jobs:
			job()
		default:
			return nil
		}
	}
}

// remove removes a queue that has nothing in flight from the thread. The thread ends with its
// last queue.
func (t *thread) remove(q *Queue) {
	t.queues[q.slot] = nil
	if t.current == q {
		t.current = nil
	}
	t.leaving = t.pool.release(t, q.slot)
}

// end frees everything that keeps a /dev/ublkcN busy. Then it announces the end of the thread
// and of its queues.
func (t *thread) end(err error) {
	t.pool.drop(t)
	if err != nil && t.serves() {
		t.pool.failed(err)
	}
	if t.ring != nil {
		_ = t.ring.Close()
	}
	if err == nil {
		t.closeShared()
	}
	t.wakeMu.Lock()
	_ = closeFD(&t.wakeFD)
	t.wakeMu.Unlock()
	t.err = err
	close(t.ended)
	for _, q := range t.queues {
		if q != nil {
			q.unmap()
			q.ended <- err
		}
	}
}

// serves reports whether a queue of the thread has fetched its tags.
func (t *thread) serves() bool {
	return slices.ContainsFunc(t.queues, func(q *Queue) bool { return q != nil && q.armed > 0 })
}
