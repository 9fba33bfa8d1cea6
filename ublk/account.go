package ublk

import (
	"math/bits"
	"time"
)

// This file is what a queue's thread does for its counters.

// timeEvery is the sample: of so many reads and writes that the kernel can complete
// by itself, one is not left to it, so that it is timed.
const timeEvery = 128

// tally is what a turn adds to an operation's counters.
type tally struct {
	requests, bytes uint64
}

// now returns the time since the thread's start, never 0. The clock is read once a
// turn, if at all.
func (t *thread) now() time.Duration {
	if t.clock == 0 {
		t.clock = max(time.Since(t.epoch), 1)
	}
	return t.clock
}

// begin has the handler begin a request. It is timed from here on, unless the kernel
// completes it by itself. The clock is not read for that: a Completer's requests begin
// at the end of Handle, which is in the same turn.
func (q *Queue) begin(req *Request) {
	if !q.hasDone {
		req.begin()
	}
	q.handler.Handle(req)
	if req.state == stateHandler || req.state == stateAsync {
		req.begin()
	}
}

// begin notes when the request came, unless that is known.
func (req *Request) begin() {
	if req.begun == 0 {
		req.begun = req.q.thread.now()
	}
}

// mayLink reports whether the kernel may complete a read or write by itself
// ([Request.ForwardAndComplete]): not one of the sample, and not one whose pages a
// command has registered, since another command must take them out before the commit.
func (q *Queue) mayLink(req *Request) bool {
	if !q.thread.linkable || req.byCommand {
		return false
	}
	q.linkable++
	return q.linkable%timeEvery != 0
}

// count counts a request that is complete. One that is left to the kernel is counted
// at that point.
func (q *Queue) count(req *Request) {
	if req.Op >= opCount {
		return
	}
	t := &q.tallies[req.Op]
	t.requests++
	t.bytes += req.Bytes()
	q.tallied |= 1 << req.Op
}

// countEnd counts the result of a request, and how long it took if it is timed.
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
		q.thread.clock = 0 // all of the request was done in this turn
	}
	c.duration.observe(q.thread.now() - req.begun)
}

// endTurn publishes what a turn has changed, so that a request takes no locked
// instruction: a store that others may read is one.
func (q *Queue) endTurn() {
	if q.tallied != 0 {
		q.publish()
	}
	if q.inService != q.published {
		q.published = q.inService
		q.counters.inService.Store(int64(q.inService))
	}
}

// publish publishes the tallies of the operations of a turn, mostly of one.
func (q *Queue) publish() {
	for left := q.tallied; left != 0; left &= left - 1 {
		op := bits.TrailingZeros8(left)
		c, t := &q.counters.ops[op], &q.tallies[op]
		c.requests.Store(t.requests)
		c.bytes.Store(t.bytes)
	}
	q.tallied = 0
}
