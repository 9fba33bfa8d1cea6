package ublk

import (
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ring"
)

// thread is a thread of the operating system with a ring, and the queues that
// it serves. What is not said to be protected is its own.
type thread struct {
	pool  *Threads
	kind  threadKind
	slots []bool // that are taken, each by a queue or for one; protected by pool.mu

	jobs   chan func() // what others want done here
	killed atomic.Bool // it is to leave at once
	ended  chan struct{}
	err    error // why it ended; read after ended
	// wakeMu protects wakeFD, an eventfd by which the ring notices jobs and
	// killed; -1 when the thread has ended.
	wakeMu sync.Mutex
	wakeFD int

	ring     *ring.Ring
	queues   []*Queue // by slot, nil where there is none
	current  *Queue   // the last that something was completed for, or nil
	linkable bool     // the kernel keeps what a linked command says
	woken    bool     // there are jobs, or killed is set
	leaving  bool     // its last queue has ended
	broken   error    // why the thread cannot go on
	spare    ring.SQE // the entry handed out then

	epoch time.Time     // the thread's start
	clock time.Duration // of this turn, since epoch; 0 before it is read
}

// threadKind is what queues have in common that can share a thread.
type threadKind struct {
	cpus  cpuMask // whose requests come to the queue
	depth int
	mode  BufferMode
	// untrusted: the driver must not trust the thread (loseTrust).
	untrusted bool
}

// newThread returns a thread with room for a number of queues, which run
// starts.
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

// run is the thread, from its set-up to the end of its last queue. Threads.take
// starts it; each queue learns of its end, and do.
func (t *thread) run() {
	// The driver binds each tag to the task that fetched it, and the kernel
	// ends a task's commands with the task. Never unlocked: Go then ends the
	// thread with the goroutine, and with it its affinity and its ring.
	runtime.LockOSThread()
	t.epoch = time.Now()
	err := t.setUp()
	if err == nil {
		err = t.serve()
	}
	t.end(err)
}

// setUp makes all that the thread needs before its first queue.
func (t *thread) setUp() error {
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

// wake makes the thread look at jobs and killed.
func (t *thread) wake() {
	t.wakeMu.Lock()
	defer t.wakeMu.Unlock()
	one := [8]byte{1, 1, 1, 1, 1, 1, 1, 1} // not 0 in any byte order
	_, _ = unix.Write(t.wakeFD, one[:])
}

// kill makes the thread end at once, with the requests of its queues unanswered.
func (t *thread) kill() {
	t.killed.Store(true)
	t.wake()
}

// do has the thread call a function, and returns its result, or why the thread
// has ended.
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

// endError returns why a thread has ended that somebody wants something of.
func (t *thread) endError() error {
	if t.err == nil {
		return ErrKilled
	}
	return t.err
}

// yieldEvery is how often a busy thread yields to Go's scheduler. A goroutine
// that has not for 10 ms is one that the runtime's monitor preempts from then
// on at each system call, 50,000 times a second; at queue depth 1 that costs an
// eighth of the speed. A yield wakes another thread, so it is not for every
// turn, and neither is a look at the clock.
const (
	yieldEvery = 5 * time.Millisecond
	clockAfter = 64 // completions
)

// serve answers requests until the last queue has ended, or until it is killed.
func (t *thread) serve() error {
	handled, yielded := uint32(0), time.Duration(0)
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
		if handled += n; handled >= clockAfter {
			handled = 0
			if now := t.now(); now-yielded >= yieldEvery {
				yielded = now
				runtime.Gosched()
			}
		}
		if t.broken != nil {
			return t.broken
		}
	}
	return nil
}

// What an entry was for: the high half of its user_data, above its queue's slot
// and the tag, of 16 bits each.
const (
	kindFetch = iota
	kindTarget
	kindForward
	kindRegister
	kindUnregister
	kindWake
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

// look does what others want done, after a wake.
func (t *thread) look() error {
	var count [8]byte
	_, _ = unix.Read(t.wakeFD, count[:]) // a wake from here on is another
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

// remove takes a queue that has nothing in flight off the thread. With its last
// queue the thread ends.
func (t *thread) remove(q *Queue) {
	t.queues[q.slot] = nil
	if t.current == q {
		t.current = nil
	}
	t.leaving = t.pool.release(t, q.slot)
}

// end lets go of all that would keep a /dev/ublkcN busy, and tells those who
// wait for the thread or for a queue.
func (t *thread) end(err error) {
	t.pool.drop(t)
	if err != nil && t.serves() {
		t.pool.failed(err)
	}
	if t.ring != nil {
		_ = t.ring.Close()
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

// serves reports whether a queue has fetched its tags here.
func (t *thread) serves() bool {
	return slices.ContainsFunc(t.queues, func(q *Queue) bool { return q != nil && q.armed > 0 })
}
