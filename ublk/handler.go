package ublk

// Target serves a device.
type Target interface {
	// NewHandler returns what serves one queue. It is called on the queue's
	// thread before the device is started; an error fails the start.
	NewHandler(*Queue) (Handler, error)
}

// Handler serves the requests of one queue, on its thread: it is never called
// twice at once, and must not block.
type Handler interface {
	// Handle begins a request, which ends by one Complete, now or later.
	Handle(*Request)
}

// Completer is a Handler that uses the queue's ring.
type Completer interface {
	Handler
	// Done is told the result of an entry from [Request.SQE].
	Done(req *Request, result int32)
}

// A HandlerFunc is a Target whose queues all have the same Handler.
type HandlerFunc func(*Request)

// NewHandler implements Target.
func (f HandlerFunc) NewHandler(*Queue) (Handler, error) { return f, nil }

// Handle implements Handler.
func (f HandlerFunc) Handle(req *Request) { f(req) }
