package ublk

import "sync"

// AsyncRequest is a request that any goroutine may complete ([Request.Async]). It is
// a value: copies of it are the same request.
type AsyncRequest struct {
	Op    Op
	Flags Flags

	offset, bytes uint64
	data          []byte
	queue         *asyncQueue // nil for the zero value, which is no request
	tag           uint16
	serial        uint64
}

// Async gives the request to other goroutines: one of them completes it, and the
// handler leaves it alone from here on. It costs a lock and a wake of the queue's
// thread, and nothing to requests that are not given away.
func (req *Request) Async() AsyncRequest {
	if !req.leaveHandler(stateAsync) {
		return AsyncRequest{}
	}
	q := req.q
	if q.async == nil {
		q.async = newAsyncQueue(q.thread, q.depth)
	}
	return AsyncRequest{
		Op: req.Op, Flags: req.Flags, offset: req.Offset(), bytes: req.Bytes(), data: req.Data(),
		queue: q.async, tag: req.tag, serial: q.async.begin(req.tag),
	}
}

// Offset returns where the request starts, in bytes.
func (r AsyncRequest) Offset() uint64 { return r.offset }

// Bytes returns how long the request is, in bytes.
func (r AsyncRequest) Bytes() uint64 { return r.bytes }

// Data is [Request.Data]. It may be used until Complete, even when the device has
// ended meanwhile.
func (r AsyncRequest) Data() []byte { return r.data }

// Complete is [Request.Complete] for any goroutine. It reports whether the request
// took the result: not if it has been completed before, and not if the device is
// served no more.
//
// A request that is never completed keeps its device from stopping, as a lost request
// of a disk would, and after [Device.Leave] its queue's buffers in memory.
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

// asyncQueue is what the thread of a queue and other goroutines share.
type asyncQueue struct {
	thread *thread

	mu      sync.Mutex // protects what is below
	serials []uint64   // by tag: of the request that is out, 0 for none
	last    uint64     // serial given out
	out     int        // requests that are out
	results []asyncResult
	ended   bool     // nobody takes results
	bufs    *buffers // to be freed with the last request that is out
}

type asyncResult struct {
	tag   uint16
	errno int32
}

func newAsyncQueue(t *thread, depth int) *asyncQueue {
	return &asyncQueue{thread: t, serials: make([]uint64, depth), results: make([]asyncResult, 0, depth)}
}

// begin notes that a tag's request is out, and returns what tells it from the next
// request of the tag.
func (a *asyncQueue) begin(tag uint16) uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.last++
	a.out++
	a.serials[tag] = a.last
	return a.last
}

// complete takes a request's result. wake says that the thread does not know yet
// that there are results.
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
	a.results = append(a.results, asyncResult{tag, errno})
	return true, len(a.results) == 1
}

// take moves the results that are there into a slice.
func (a *asyncQueue) take(into []asyncResult) []asyncResult {
	a.mu.Lock()
	defer a.mu.Unlock()
	into = append(into[:0], a.results...)
	a.results = a.results[:0]
	return into
}

// end is the end of the queue. Its buffers are freed when no request is out.
func (a *asyncQueue) end(bufs *buffers) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ended, a.bufs = true, bufs
	a.freeUnused()
}

func (a *asyncQueue) freeUnused() {
	if a.out == 0 && a.bufs != nil {
		a.bufs.free()
	}
}

// takeAsync completes what other goroutines have results for. The thread calls it
// after a wake.
func (q *Queue) takeAsync() {
	if q.async == nil {
		return
	}
	q.asyncResults = q.async.take(q.asyncResults)
	for _, r := range q.asyncResults {
		req := &q.reqs[r.tag]
		req.state = stateHandler
		req.CompleteErrno(r.errno)
	}
	q.endTurn()
}
