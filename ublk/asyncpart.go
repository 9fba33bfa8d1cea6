package ublk

// AsyncPart is a part of a request whose result is from another goroutine
// ([Request.AsyncPart]).
type AsyncPart struct {
	queue *asyncQueue
	tag   uint16
	part  int
}

// AsyncPart is PartSQE for a part that another goroutine carries out. The goroutine calls
// [AsyncPart.Done] once, and the handler keeps the request until then.
func (req *Request) AsyncPart(part int) AsyncPart {
	return AsyncPart{req.q.makeAsync(), req.tag, part}
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
func (a *asyncQueue) partDone(tag uint16, part int, result int32) (wake bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ended {
		return false
	}
	a.results = append(a.results, asyncResult{tag, part, result})
	return len(a.results) == 1
}
