package ublk

import (
	"sync"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// counting returns a queue that only counts, and its device.
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
		{OpWrite, 4096, 0}, // completed by the kernel
		{OpWriteZeroes, 0, time.Second},
		{opCount, 0, time.Second}, // not an operation
	} {
		req := &Request{Op: tt.op, Sectors: 8, begun: tt.begun}
		q.count(req)
		q.countEnd(req, tt.result)
	}
	if n := d.Stats().Ops[OpRead].Requests; n != 0 {
		t.Errorf("%d reads are published in the turn that has them", n)
	}
	q.endTurn()
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

// A request that begins and ends in one turn still has a duration.
func TestCountWithinATurn(t *testing.T) {
	q, d := counting()
	begun := q.thread.now()
	for time.Since(q.thread.epoch) < begun+10*time.Millisecond {
	}
	q.countEnd(&Request{Op: OpRead, begun: begun}, 0)
	if sum := d.Stats().Ops[OpRead].Duration.Sum; sum < 10*time.Millisecond {
		t.Errorf("what took 10 ms and more counts as %v", sum)
	}
}

// Other goroutines may read while the queue counts.
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
		req := &Request{Op: OpRead, Sectors: 1, begun: 1}
		q.count(req)
		q.countEnd(req, 0)
		q.endTurn()
	}
	reader.Wait()
	if s := d.Stats(); s.InService != 1 || s.Ops[OpRead].Duration.Count() != n {
		t.Errorf("stats are %+v", s)
	}
}

// No two queues write to the same pair of cache lines, at whatever address their counters
// begin.
func TestCountersShareNoCacheLine(t *testing.T) {
	c := &counters{}
	size, first := unsafe.Sizeof(*c), unsafe.Offsetof(c.ops)
	last := unsafe.Offsetof(c.fallbacks) + unsafe.Sizeof(c.fallbacks)
	if first < 128 || size-last < 128 {
		t.Errorf("counters are bytes %d to %d of %d", first, last, size)
	}
}

// One in timeEvery requests is timed. The kernel completes no request whose commit cannot be
// linked.
func TestMayLink(t *testing.T) {
	for _, tt := range []struct {
		name string
		req  Request
		keep bool // the kernel keeps the content of a linked command
		want int  // of 1280
	}{
		{"read", Request{Op: OpRead}, true, 1270},
		{"write", Request{Op: OpWrite}, true, 1270},
		{"registered by command", Request{Op: OpRead, byCommand: true}, true, 0},
		{"an older kernel", Request{Op: OpRead}, false, 0},
	} {
		q, _ := counting()
		q.thread.linkable = tt.keep
		n := 0
		for range 10 * timeEvery {
			if q.mayLink(&tt.req) {
				n++
			}
		}
		if n != tt.want {
			t.Errorf("%s: %d of 1280 are left to the kernel, want %d", tt.name, n, tt.want)
		}
	}
}

// Exactly the requests that take a turn at their end are timed.
func TestTimed(t *testing.T) {
	const n = 1000
	for _, tt := range []struct {
		name  string
		alone bool
		want  uint64
	}{{"the kernel completes", true, n / timeEvery}, {"Done completes", false, n}} {
		t.Run(tt.name, func(t *testing.T) {
			h := &untimed{fd: fileOf(t, pattern(nullRequestBytes)), alone: tt.alone, n: n}
			q := serveNull(t, 1, h)
			s := settled(t, q, func(s Stats) bool { return s.Ops[OpRead].Requests == n && s.InService == 1 })
			if !q.thread.linkable {
				tt.want = n
			}
			if got := s.Ops[OpRead].Duration.Count(); got != tt.want || s.Ops[OpRead].Errors != 0 {
				t.Errorf("%d of %d requests are timed, %d have failed; want %d, 0", got, n, s.Ops[OpRead].Errors, tt.want)
			}
		})
	}
}

// untimed forwards n requests and keeps the next one.
type untimed struct {
	fd, n int
	alone bool
	file  File
}

func (u *untimed) NewHandler(q *Queue) (Handler, error) {
	var err error
	u.file, err = q.RegisterFile(u.fd)
	return u, err
}

func (u *untimed) Handle(req *Request) {
	switch u.n--; {
	case u.n < 0:
	case u.alone:
		req.ForwardAndComplete(u.file, 0)
	default:
		req.Forward(u.file, 0)
	}
}

func (*untimed) Done(req *Request, res int32) { req.CompleteErrno(res) }

// The cost of counting a timed request.
func BenchmarkCount(b *testing.B) {
	q, _ := counting()
	req := &Request{Op: OpRead, Sectors: 8, begun: 1}
	q.thread.now()
	for b.Loop() {
		q.count(req)
		q.countEnd(req, 4096)
	}
}
