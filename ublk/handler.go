package ublk

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Target serves a device.
type Target interface {
	// NewHandler returns what serves one queue. It is called on the queue's
	// thread before the device is started; an error fails the start.
	NewHandler(*Queue) (Handler, error)
}

// Handler serves the requests of one queue, on its thread: it is never called
// twice at once, and must not block.
type Handler interface {
	// Handle begins a request, which ends by one Complete, now or later. Other
	// goroutines complete it by [Request.Async].
	Handle(*Request)
}

// Completer is a Handler that has the kernel read or write for it.
type Completer interface {
	Handler
	// Done is told the result of a [Request.Forward], or of an entry from
	// [Request.SQE].
	Done(req *Request, result int32)
}

// Watcher is a Completer that stands between a queue and the operations of
// [Request.Forward], for tests of what a file can answer.
type Watcher interface {
	Completer
	// Forwarded is told an operation's result before the queue acts on it. The
	// queue acts in the call of act, on this result or another.
	Forwarded(req *Request, result int32, act func(result int32))
}

// noCompleter takes the results of a handler that is no Completer: there are none.
type noCompleter struct{}

func (noCompleter) Handle(*Request) {}

func (noCompleter) Done(req *Request, _ int32) {
	req.q.thread.broken = fmt.Errorf("a result of a handler without Done: %w", unix.EINVAL)
}

// A HandlerFunc is a Target whose queues all have the same Handler.
type HandlerFunc func(*Request)

// NewHandler implements Target.
func (f HandlerFunc) NewHandler(*Queue) (Handler, error) { return f, nil }

// Handle implements Handler.
func (f HandlerFunc) Handle(req *Request) { f(req) }
