package ublk

import (
	"sync"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// counting returns a queue that only counts, and where.
func counting() (*Queue, *Device) {
	d := &Device{counters: newCounters(2)}
	return &Queue{dev: d, counters: d.counters[1], thread: &thread{epoch: time.Now().Add(-time.Hour)}}, d
}

func TestCount(t *testing.T) {
	q, d := counting()
	for _, tt := range []struct {
		op     Op
		result int32
		begun  time.Duration
	}{
		{OpRead, 4096, time.Second},
		{OpRead, -int32(unix.EIO), time.Second},
		{OpWrite, 4096, 0}, // left to the kernel
		{OpWriteZeroes, 0, time.Second},
		{opCount, 0, time.Second}, // no operation that there is
	} {
		q.count(&Request{Op: tt.op, Sectors: 8, begun: tt.begun}, tt.result)
	}
	s := d.Stats()
	for op, want := range map[Op][4]uint64{
		OpRead: {2, 8192, 1, 2}, OpWrite: {1, 4096, 0, 0}, OpFlush: {}, OpDiscard: {}, OpWriteZeroes: {1, 4096, 0, 1},
	} {
		c := &s.Ops[op]
		if got := [4]uint64{c.Requests, c.Bytes, c.Errors, c.Duration.Count()}; got != want {
			t.Errorf("%v: requests, bytes, errors, timed: %d, want %d", op, got, want)
		}
	}
	if sum := s.Ops[OpRead].Duration.Sum; sum < 2*(time.Hour-time.Second) {
		t.Errorf("two requests of an hour each took %v", sum)
	}
}

// A request that was left to the kernel and comes back is one all the same.
func TestCountOnce(t *testing.T) {
	q, d := counting()
	req := &Request{Op: OpWrite, Sectors: 8}
	q.count(req, 4096)
	q.count(req, -int32(unix.ENOSPC))
	if c := d.Stats().Ops[OpWrite]; c.Requests != 1 || c.Bytes != 4096 || c.Errors != 1 {
		t.Errorf("counted %d requests, %d bytes, %d errors; want 1, 4096, 1", c.Requests, c.Bytes, c.Errors)
	}
}

// What is begun and ended in one turn took time, too.
func TestCountWithinATurn(t *testing.T) {
	q, d := counting()
	begun := q.thread.now()
	for time.Since(q.thread.epoch) < begun+10*time.Millisecond {
	}
	q.count(&Request{Op: OpRead, begun: begun}, 0)
	if sum := d.Stats().Ops[OpRead].Duration.Sum; sum < 10*time.Millisecond {
		t.Errorf("what took 10 ms and more counts as %v", sum)
	}
}

// Anybody may read while the queue counts.
func TestStatsMeanwhile(t *testing.T) {
	q, d := counting()
	const n = 10000
	var reader sync.WaitGroup
	reader.Go(func() {
		for d.Stats().Ops[OpRead].Requests < n {
		}
	})
	for i := range n {
		q.inService = i & 1
		q.count(&Request{Op: OpRead, Sectors: 1, begun: 1}, 0)
		q.endTurn()
	}
	reader.Wait()
	if s := d.Stats(); s.InService != 1 || s.Ops[OpRead].Duration.Count() != n {
		t.Errorf("stats are %+v", s)
	}
}

// No two queues write to the same pair of cache lines, wherever their counters
// begin.
func TestCountersShareNoCacheLine(t *testing.T) {
	c := &counters{}
	size, first := unsafe.Sizeof(*c), unsafe.Offsetof(c.ops)
	last := unsafe.Offsetof(c.fallbacks) + unsafe.Sizeof(c.fallbacks)
	if first < 128 || size-last < 128 {
		t.Errorf("counters are bytes %d to %d of %d", first, last, size)
	}
}

// One in so many is timed, and while it is served the others are no less alone.
func TestIsAlone(t *testing.T) {
	q, _ := counting()
	q.hasDone = true
	if q.isAlone(&Request{q: q, Op: OpRead}) {
		t.Error("one is left to a kernel that forgets what it is to do then")
	}
	q.thread.linkable = true
	alone := 0
	var sampled []*Request
	q.inService = 1
	for range 10 * timeEvery {
		req := &Request{q: q, Op: OpRead}
		if q.isAlone(req) {
			alone++
			continue
		}
		sampled = append(sampled, req)
		q.inService++
	}
	if alone != 10*(timeEvery-1) {
		t.Errorf("%d of %d are left to the kernel", alone, 10*timeEvery)
	}
	for _, req := range sampled {
		q.count(req, 0)
	}
	if q.sampled != 0 {
		t.Errorf("%d are a sample when all have ended", q.sampled)
	}
	if q.isAlone(&Request{q: q, Op: OpFlush}) {
		t.Error("a flush is left to the kernel")
	}
	if q.inService = 2; q.isAlone(&Request{q: q, Op: OpRead}) {
		t.Error("one of two is alone")
	}
}

// What a request's counting costs, one that is timed.
func BenchmarkCount(b *testing.B) {
	q, _ := counting()
	req := &Request{Op: OpRead, Sectors: 8, begun: 1}
	q.thread.now()
	for b.Loop() {
		req.counted = false
		q.count(req, 4096)
	}
}
