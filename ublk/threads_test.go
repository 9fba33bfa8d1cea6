package ublk

import (
	"errors"
	"runtime"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ring"
)

// kindOn returns a kind of thread with a number of CPUs.
func kindOn(cpus, depth int) threadKind {
	kind, numbers := threadKind{depth: depth, mode: BufferAutoRegister, files: defaultFiles}, []int(nil)
	for cpu := range cpus {
		numbers = append(numbers, cpu)
	}
	kind.cpus = maskOf(cpus, numbers...)
	return kind
}

// The first queues have threads of their own, at least one for each CPU. Later threads have room
// for as many queues as exist, up to the limit of a ring.
func TestThreadsGrow(t *testing.T) {
	for _, tt := range []struct {
		name        string
		cpus, depth int
		own         int
		least       []int // slots of each thread, in order
	}{
		{"a CPU", 1, 32, 0, []int{1, 1, 2, 4, 8}},
		{"four CPUs", 4, 32, 0, []int{1, 1, 1, 1, 1, 1, 1, 1, 2}},
		{"the deepest queues", 1, 4096, 0, []int{1, 1, 1, 1, 1}},
		{"queues that fill a ring", 1, 2, 0, []int{1, 1, 2, 4, 8}},
		{"busy queues", 1, 32, 4, []int{1, 1, 1, 1, 4, 8}},
		{"busy queues for four CPUs", 4, 32, 6, []int{1, 1, 1, 1, 1, 1, 1, 1, 2}},
	} {
		kind := kindOn(tt.cpus, tt.depth)
		p := NewThreads(tt.own, nil)
		total := 0
		for i, least := range tt.least {
			n := p.nextSlots(kind)
			// A ring has up to twice the entries, because its size is rounded up.
			if share := max(1, total/tt.cpus); n < least || n > 2*share-1 || i < tt.own && n != 1 {
				t.Errorf("%s: thread %d has %d slots, after %d in all; want %d at least, and less than twice %d", tt.name, i, n, total, least, share)
			}
			p.threads[kind] = append(p.threads[kind], &thread{pool: p, kind: kind, slots: make([]bool, n)})
			total += n
		}
	}
}

// However many queues exist, those of a thread fill its ring and do not exceed its limit. The
// kernel accepts the size of its tables.
func TestThreadsLimit(t *testing.T) {
	for _, depth := range []int{1, 2, 32, 64, 128, 1000, 4096} {
		kind := kindOn(1, depth)
		p := NewThreads(0, nil)
		p.threads[kind] = []*thread{{slots: make([]bool, 100000)}}
		n, each := p.nextSlots(kind), (&threadKind{depth: depth}).entries()
		if n > 1 && n*each > maxEntries || (n+1)*each <= maxEntries {
			t.Errorf("depth %d: %d queues of %d entries in a ring of %d", depth, n, each, maxEntries)
		}
		const maxBuffers = 16384 // IORING_MAX_REG_BUFFERS in io_uring/rsrc.c
		if slots := n * bufferSlots(BufferAutoRegister, depth); slots > maxBuffers {
			t.Errorf("depth %d: %d buffers, more than %d", depth, slots, maxBuffers)
		}
	}
}

// A table has the slots of each tag and no others, because its size limits the queues.
func TestBufferSlots(t *testing.T) {
	for mode, want := range map[BufferMode]int{BufferCopy: 16, BufferRegister: 32, BufferAutoRegister: 32} {
		if got := bufferSlots(mode, 16); got != want {
			t.Errorf("%v: %d slots for 16 tags, want %d", mode, got, want)
		}
	}
}

// The slots of a table begin empty, and have no open file of this process.
func TestTablesBeginEmpty(t *testing.T) {
	r, err := ring.New(ring.Options{Entries: 4})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	th := &thread{ring: r, kind: kindOn(1, 4), slots: make([]bool, 2)}
	if err := th.newTables(); err != nil {
		t.Fatal(err)
	}
	for slot := range uint32(len(th.slots) * defaultFiles) {
		r.GetSQE().PrepFsync(ring.FixedFile(slot), 0)
		if err := r.SubmitAndWait(1); err != nil {
			t.Fatal(err)
		}
		if got := r.CQE(0).Res; got != -int32(unix.EBADF) {
			t.Errorf("slot %d: result %d, want EBADF", slot, got)
		}
		r.CQAdvance(1)
	}
}

// A thread cannot be set up if its ring cannot be registered, except on kernels without this
// registration.
func TestRingIsNotRegistered(t *testing.T) {
	runtime.LockOSThread() // it gets as many registered rings as a thread may have, and ends with the test
	const most = 16        // IO_RINGFD_REG_MAX in io_uring/register.c
	for range most {
		r, err := ring.New(ring.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if err := r.RegisterRingFD(); err != nil {
			t.Fatal(err)
		}
	}
	th := &thread{pool: NewThreads(0, func(err error) { t.Error(err) }), kind: kindOn(1, 4), slots: make([]bool, 1)}
	if err := th.newRing(); !errors.Is(err, unix.EBUSY) {
		t.Errorf("error %v, want EBUSY", err)
	}
	if err := th.ring.Close(); err != nil {
		t.Error(err)
	}
}

// A queue goes to the thread of its kind with the fewest queues. A thread without queues ends.
func TestThreadsTake(t *testing.T) {
	kind, other := kindOn(1, 32), kindOn(1, 64)
	p := NewThreads(0, func(err error) { t.Error(err) })
	full := &thread{pool: p, kind: kind, slots: []bool{true}}
	busy := &thread{pool: p, kind: kind, slots: []bool{true, true, false, false}}
	idle := &thread{pool: p, kind: kind, slots: []bool{true, false}}
	p.threads[kind] = []*thread{full, busy, idle}
	p.threads[other] = []*thread{{pool: p, kind: other, slots: make([]bool, 4)}}
	got, slot, err := p.take(kind)
	if err != nil || got != idle || slot != 1 {
		t.Fatalf("slot %d of %p, error %v; want slot 1 of %p", slot, got, err, idle)
	}
	if p.release(idle, 0) {
		t.Error("a thread with a queue ends")
	}
	if !p.release(idle, 1) || slices.Contains(p.threads[kind], idle) {
		t.Error("a thread without queues does not end, or gets others")
	}
}

// A thread that could not be set up answers each call of do with an error, and no device hangs.
func TestThreadFails(t *testing.T) {
	p := NewThreads(0, func(err error) { t.Error("devices hang:", err) })
	th, _, err := p.take(threadKind{depth: 1 << 20, mode: BufferCopy}) // no ring has so many entries
	if err != nil {
		t.Fatal(err)
	}
	if err := th.do(func() error { return nil }); err == nil {
		t.Fatal("a thread without a ring works")
	}
	<-th.ended
	if err := th.do(func() error { return nil }); err == nil {
		t.Fatal("a thread that has ended works")
	}
	th.kill() // does nothing
	if len(p.threads) != 0 {
		t.Error("others could get it")
	}
}

// A thread calls the function of do, and ends when it is killed.
func TestThreadKilled(t *testing.T) {
	p := ownThreads()
	th, _, err := p.take(threadKind{depth: 4, mode: BufferCopy, files: defaultFiles})
	if err != nil {
		t.Fatal(err)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	here, there := unix.Gettid(), 0
	if err := th.do(func() error { there = unix.Gettid(); return unix.EXFULL }); !errors.Is(err, unix.EXFULL) || there == here {
		t.Fatalf("error %v from thread %d, asked by %d", err, there, here)
	}
	th.kill()
	<-th.ended
	if !errors.Is(th.err, ErrKilled) {
		t.Errorf("it ended with %v", th.err)
	}
}

// A thread's ring has as many entries and workers for each of its queues as the queue would have
// alone.
func TestThreadHasRoomForItsQueues(t *testing.T) {
	p := NewThreads(0, func(err error) { t.Error(err) })
	kind := threadKind{depth: 16, mode: BufferCopy, files: defaultFiles}
	p.threads[kind] = []*thread{{pool: p, kind: kind, slots: slices.Repeat([]bool{true}, 5)}}
	th, slot, err := p.take(kind)
	if err != nil {
		t.Fatal(err)
	}
	n := len(th.slots)
	if n < 5 {
		t.Fatalf("a thread after five queues has %d slots", n)
	}
	err = th.do(func() error {
		if space := th.ring.SQSpace(); space < n*(&threadKind{depth: 16}).entries() {
			t.Errorf("a ring for %d queues has %d entries", n, space)
		}
		workers, _, err := th.ring.RegisterIOWQMaxWorkers(0, 0)
		if workers != uint32(n*workersOf(16)) {
			t.Errorf("%d workers for %d queues, want %d each", workers, n, workersOf(16))
		}
		th.leaving = p.release(th, slot)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	<-th.ended
	if th.err != nil {
		t.Errorf("it ended with %v", th.err)
	}
}
