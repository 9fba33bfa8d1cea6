package ublk

import (
	"sync"
)

// AsyncRequest is a request that any goroutine may complete ([Request.Async]). All copies
// of the value stand for the same request.
type AsyncRequest struct {
	Op    Op
	Flags Flags

	offset, bytes uint64
	data          []byte
	queue         *asyncQueue // nil in the zero value, which stands for no request
	tag           uint16
	serial        uint64
}

// Async gives the request to other goroutines. One of them completes it, and the handler
// must not use the request after this call. The request costs locks and a wake of the
// queue's thread. Other requests cost nothing more.
func (req *Request) Async() AsyncRequest {
	if !req.leaveHandler(stateAsync) {
		return AsyncRequest{}
	}
	async := req.q.makeAsync()
	return AsyncRequest{
		Op: req.Op, Flags: req.Flags, offset: req.Offset(), bytes: req.Bytes(), data: req.Data(),
		queue: async, tag: req.tag, serial: async.begin(req.tag),
	}
}

// makeAsync returns the state that the queue shares with other goroutines.
func (q *Queue) makeAsync() *asyncQueue {
	if q.async == nil {
		parts := q.depth + q.thread.kind.extraParts
		q.async = newAsyncQueue(q.thread, q.depth, parts)
		q.asyncResults = make([]asyncResult, 0, parts)
	}
	return q.async
}

// Offset returns where the request starts, in bytes.
func (r AsyncRequest) Offset() uint64 { return r.offset }

// Bytes returns how long the request is, in bytes.
func (r AsyncRequest) Bytes() uint64 { return r.bytes }

// Data is [Request.Data]. The caller may use it until Complete, even if the device ends
// before that.
func (r AsyncRequest) Data() []byte { return r.data }

// Complete is [Request.Complete] for any goroutine. It reports whether the request took
// the result. It returns false if the request was completed before, or if the device has
// ended.
//
// A device does not stop before each request is completed. After [Device.Leave], the
// buffers of a queue stay in memory until its last request is completed.
func (r AsyncRequest) Complete(err error) bool {
	if r.queue == nil {
		return false
	}
	errno := int32(0)
	if err != nil {
		errno = Result(err)
	}
	taken, wake := r.queue.complete(r.tag, r.serial, errno)
	if wake {
		r.queue.thread.wake()
	}
	return taken
}

// asyncQueue is the state that the thread of a queue shares with other goroutines.
type asyncQueue struct {
	thread *thread

	mu      sync.Mutex // protects what is below
	serials []uint64   // by tag: the serial of the request that is out, 0 for none
	last    uint64     // the last serial used
	out     int        // requests that goroutines have not completed
	results []asyncResult
	ended   bool     // the queue takes no more results
	bufs    *buffers // freed when no request is out; nil until the queue has ended
}

// asyncResult is the result of a request or of one of its parts.
type asyncResult struct {
	tag   uint16
	part  int32 // -1 for the request
	errno int32
}

func newAsyncQueue(t *thread, depth, parts int) *asyncQueue {
	return &asyncQueue{thread: t, serials: make([]uint64, depth), results: make([]asyncResult, 0, parts)}
}

// begin records that a tag's request is out. It returns a serial that no other request
// has.
func (a *asyncQueue) begin(tag uint16) uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.last++
	a.out++
	a.serials[tag] = a.last
	return a.last
}

// complete takes a request's result. wake is true for the first result that the thread
// has not taken: the caller then wakes the thread.
func (a *asyncQueue) complete(tag uint16, serial uint64, errno int32) (taken, wake bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.serials[tag] != serial {
		return false, false
	}
	a.serials[tag] = 0
	a.out--
	if a.ended {
		a.freeUnused()
		return false, false
	}
	a.results = append(a.results, asyncResult{tag, -1, errno})
	return true, len(a.results) == 1
}

// take moves all results into a slice.
func (a *asyncQueue) take(into []asyncResult) []asyncResult {
	a.mu.Lock()
	defer a.mu.Unlock()
	into = append(into[:0], a.results...)
	a.results = a.results[:0]
	return into
}

// stop makes the queue refuse results.
func (a *asyncQueue) stop() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ended = true
}

// end ends the queue. Its buffers are freed as soon as no request is out.
func (a *asyncQueue) end(bufs *buffers) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ended, a.bufs = true, bufs
	a.freeUnused()
}

// freeUnused frees the buffers of an ended queue if no request is out. The caller holds
// the lock.
func (a *asyncQueue) freeUnused() {
	if a.out == 0 && a.bufs != nil {
		a.bufs.free()
	}
}

// takeAsync completes the requests for which other goroutines have results. The thread
// calls it after a wake.
func (q *Queue) takeAsync() {
	if q.async == nil {
		return
	}
	q.asyncResults = q.async.take(q.asyncResults)
	for _, r := range q.asyncResults {
		req := &q.reqs[r.tag]
		if r.part >= 0 {
			q.parts.PartDone(req, int(r.part), r.errno)
			continue
		}
		req.state = stateHandler
		req.CompleteErrno(r.errno)
	}
	q.endTurn()
}

// AsyncPart is a part of a request whose result is from another goroutine
// ([Request.AsyncPart]).
type AsyncPart struct {
	queue *asyncQueue
	part  int32
	tag   uint16
}

// AsyncPart is PartSQE for a part that another goroutine carries out. The goroutine calls
// [AsyncPart.Done] once, and the handler keeps the request until then.
func (req *Request) AsyncPart(part int) AsyncPart {
	return AsyncPart{req.q.makeAsync(), int32(part), req.tag}
}

// Done makes the queue's thread call [PartCompleter.PartDone] with the result. Any goroutine
// may call it, also the handler itself. It has no effect after the queue's end.
func (p AsyncPart) Done(result int32) {
	if p.queue.partDone(p.tag, p.part, result) {
		p.queue.thread.wake()
	}
}

// partDone takes the result of a part, and reports whether it is the first result that the
// thread has not taken.
func (a *asyncQueue) partDone(tag uint16, part, result int32) (wake bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ended {
		return false
	}
	a.results = append(a.results, asyncResult{tag, part, result})
	return len(a.results) == 1
}
