package ublk

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Target serves a device.
type Target interface {
	// NewHandler returns the handler of one queue. The queue's thread calls it before
	// the device starts. Its error is the error of Start.
	NewHandler(*Queue) (Handler, error)
}

// Handler serves the requests of one queue, on the queue's thread. The thread makes one call
// at a time. A handler must not block.
type Handler interface {
	// Handle begins a request. The handler completes it once, in Handle or later on the
	// same thread. To complete it from another goroutine, use [Request.Async].
	Handle(*Request)
}

// Completer is a Handler that makes the kernel read or write for it.
type Completer interface {
	Handler
	// Done receives the result of a [Request.Forward], or of an entry from
	// [Request.SQE].
	Done(req *Request, result int32)
}

// PartCompleter is a Completer that divides requests into parts ([Request.PartSQE]).
type PartCompleter interface {
	Completer
	// PartDone receives the result of a part's entry.
	PartDone(req *Request, part int, result int32)
}

// Watcher is a Completer that sees, and can replace, the results of [Request.Forward]. It is
// for tests of results that files rarely have.
type Watcher interface {
	Completer
	// Forwarded receives an operation's result before the queue acts on it. It calls act
	// with the result for the queue to act on.
	Forwarded(req *Request, result int32, act func(result int32))
}

// noCompleter stands in for a handler that is not a Completer or PartCompleter. It receives no
// results.
type noCompleter struct{}

func (noCompleter) Handle(*Request) {}

func (noCompleter) Done(req *Request, _ int32) {
	req.q.thread.broken = fmt.Errorf("a result of a handler without Done: %w", unix.EINVAL)
}

func (c noCompleter) PartDone(req *Request, _ int, result int32) { c.Done(req, result) }

// A HandlerFunc is a Target whose queues all have the same Handler.
type HandlerFunc func(*Request)

// NewHandler implements Target.
func (f HandlerFunc) NewHandler(*Queue) (Handler, error) { return f, nil }

// Handle implements Handler.
func (f HandlerFunc) Handle(req *Request) { f(req) }
