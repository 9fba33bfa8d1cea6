package ublk

import (
	"math/bits"
	"time"
)

// This file has what a queue's thread does for its counters.

// timeEvery is the size of the sample. Of timeEvery reads and writes that the kernel can
// complete by itself, the thread completes one, and times it.
const timeEvery = 128

// tally is what a turn adds to an operation's counters.
type tally struct {
	requests, bytes uint64
}

// now returns the time since the thread's start, never 0. It reads the clock at most
// once a turn.
func (t *thread) now() time.Duration {
	if t.clock == 0 {
		t.clock = max(time.Since(t.epoch), 1)
	}
	return t.clock
}

// begin gives a request to the handler. The request is timed from here on, unless the
// kernel completes it by itself. To save that request a look at the clock, a Completer's
// requests begin after Handle, which is in the same turn.
func (q *Queue) begin(req *Request) {
	if !q.hasDone {
		req.begin()
	}
	q.handler.Handle(req)
	if req.state == stateHandler || req.state == stateAsync {
		req.begin()
	}
}

// begin records when the request came, unless that is recorded already.
func (req *Request) begin() {
	if req.begun == 0 {
		req.begun = req.q.thread.now()
	}
}

// mayLink reports whether the kernel may complete a read or write by itself
// ([Request.ForwardAndComplete]). It may not if the request belongs to the sample, or if a
// command has registered its pages, because another command must unregister them before
// the commit.
func (q *Queue) mayLink(req *Request) bool {
	if !q.thread.linkable || req.byCommand {
		return false
	}
	q.linkable++
	return q.linkable%timeEvery != 0
}

// count counts a request that is complete, or that the kernel will complete by itself.
func (q *Queue) count(req *Request) {
	if req.Op >= opCount {
		return
	}
	t := &q.tallies[req.Op]
	t.requests++
	t.bytes += req.Bytes()
	q.tallied |= 1 << req.Op
}

// countEnd counts the result of a request, and its duration if it is timed.
func (q *Queue) countEnd(req *Request, result int32) {
	if req.Op >= opCount {
		return
	}
	c := &q.counters.ops[req.Op]
	if result < 0 {
		c.errors.Add(1)
	}
	if req.begun == 0 {
		return
	}
	if req.begun == q.thread.clock {
		q.thread.clock = 0 // the request began and ended in this turn
	}
	c.duration.observe(q.thread.now() - req.begun)
}

// endTurn publishes what a turn has changed. A store that other threads may read is a
// locked instruction, and the requests themselves need none.
func (q *Queue) endTurn() {
	if q.tallied != 0 {
		q.publish()
	}
	if q.inService != q.published {
		q.published = q.inService
		q.counters.inService.Store(int64(q.inService))
	}
}

// publish publishes the tallies of the operations of a turn. Most turns have one.
func (q *Queue) publish() {
	for left := q.tallied; left != 0; left &= left - 1 {
		op := bits.TrailingZeros8(left)
		c, t := &q.counters.ops[op], &q.tallies[op]
		c.requests.Store(t.requests)
		c.bytes.Store(t.bytes)
	}
	q.tallied = 0
}
