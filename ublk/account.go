package ublk

import "time"

// This file is what a queue's thread does for its counters.

// timeEvery says which of the requests that the kernel could complete by itself
// are a sample: they are not left to it, so that they are timed.
const timeEvery = 128

// now returns the time since the thread's start, never 0. The clock is read once
// a turn, where somebody asks.
func (t *thread) now() time.Duration {
	if t.clock == 0 {
		t.clock = max(time.Since(t.epoch), 1)
	}
	return t.clock
}

// begin has the handler begin a request. One that may be left to the kernel
// has no time of a beginning, unless that turns out not to be.
func (q *Queue) begin(req *Request) {
	req.alone = q.isAlone(req)
	if !req.alone && req.begun == 0 {
		req.begun = q.thread.now()
	}
	q.handler.Handle(req)
	if req.alone && req.state == stateHandler {
		req.begun = q.thread.now()
	}
}

// isAlone reports whether the kernel may complete the request by itself: no
// other waits for a turn of this thread, but for those of the sample. Those do
// not count, so that it makes no difference to others.
func (q *Queue) isAlone(req *Request) bool {
	if !q.thread.linkable || q.inService-q.sampled > 1 || !q.hasDone || !req.Op.HasData() || req.byCommand {
		return false
	}
	if q.lone++; q.lone%timeEvery == 0 {
		req.sampled = true
		q.sampled++
		return false
	}
	return true
}

// count counts a request that ends with a result. One that was left to the
// kernel is counted at that point, and not again where it comes back.
func (q *Queue) count(req *Request, result int32) {
	if req.sampled {
		req.sampled = false
		q.sampled--
	}
	c := q.counters.of(req)
	if c == nil {
		return
	}
	if !req.counted {
		req.counted = true
		c.requests.Add(1)
		c.bytes.Add(req.Bytes())
	}
	if result < 0 {
		c.errors.Add(1)
	}
	if req.begun == 0 {
		return
	}
	if req.begun == q.thread.clock {
		q.thread.clock = 0 // all of the request was done in this turn
	}
	c.duration.observe(q.thread.now() - req.begun)
}

// endTurn publishes what changes in each turn.
func (q *Queue) endTurn() {
	if q.inService != q.published {
		q.published = q.inService
		q.counters.inService.Store(int64(q.inService))
	}
}
