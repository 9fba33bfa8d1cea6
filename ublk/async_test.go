package ublk

import (
	"errors"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Many goroutines complete requests at once, in any order, each request once.
func TestAsyncManyGoroutines(t *testing.T) {
	const depth, workers, rounds = 64, 32, 20000
	requests := make(chan AsyncRequest, depth)
	var left sync.WaitGroup
	left.Add(rounds)
	handed := 0
	q := serveNull(t, depth, HandlerFunc(func(req *Request) {
		if handed++; handed <= rounds {
			requests <- req.Async()
		}
	}))
	for range workers {
		go func() {
			for r := range requests {
				for i := range r.Data() {
					r.Data()[i] = byte(i)
				}
				if rand.IntN(4) == 0 {
					runtime.Gosched()
				}
				if !r.Complete(nil) {
					t.Error("a request does not take its result")
				}
				if r.Complete(unix.EIO) {
					t.Error("a request takes a second result")
				}
				left.Done()
			}
		}()
	}
	done := make(chan struct{})
	go func() { left.Wait(); close(done) }()
	within(t, done, "all requests are completed")
	close(requests)
	if s := settled(t, q, func(s Stats) bool { return s.InService == depth }); s.Ops[OpRead].Errors != 0 {
		t.Errorf("%d requests have failed, none should", s.Ops[OpRead].Errors)
	}
}

// settled waits until a queue's statistics are as expected.
func settled(t *testing.T, q *nullQueue, ok func(Stats) bool) Stats {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		s := q.dev.Stats()
		if ok(s) || time.Now().After(deadline) {
			if !ok(s) {
				t.Errorf("the queue does not come to rest: %+v", s)
			}
			return s
		}
		runtime.Gosched()
	}
}

// A result that comes after the queue's end is refused. The buffer stays in memory until
// then.
func TestAsyncAfterTheEnd(t *testing.T) {
	requests := make(chan AsyncRequest, 1)
	q := serveNull(t, 1, HandlerFunc(func(req *Request) { requests <- req.Async() }))
	r := within(t, requests, "a request")
	bufs := q.bufs
	if err := q.kill(); !errors.Is(err, ErrKilled) {
		t.Fatalf("the queue ends with %v", err)
	}
	r.Data()[nullRequestBytes-1] = 1 // a fault if it is not mapped
	if bufs.arena == nil {
		t.Error("the buffers are gone while a goroutine has one")
	}
	if r.Complete(nil) {
		t.Error("a queue that has ended takes a result")
	}
	if bufs.arena != nil {
		t.Error("the buffers are in memory after the last request")
	}
	if r.Complete(nil) {
		t.Error("a second result is taken after the end")
	}
}

// Goroutines complete requests while the queue ends. The queue takes or refuses each result,
// and the last one frees the buffers.
func TestAsyncWhileItEnds(t *testing.T) {
	const depth = 16
	for range 20 {
		requests := make(chan AsyncRequest, depth)
		q := serveNull(t, depth, HandlerFunc(func(req *Request) { requests <- req.Async() }))
		bufs := q.bufs
		var start, end sync.WaitGroup
		start.Add(1)
		for range depth {
			r := within(t, requests, "a request")
			end.Go(func() {
				start.Wait()
				r.Data()[0] = 1
				r.Complete(nil)
			})
		}
		start.Done()
		if err := q.kill(); !errors.Is(err, ErrKilled) {
			t.Fatalf("the queue ends with %v", err)
		}
		end.Wait()
		for len(requests) > 0 {
			(<-requests).Complete(nil)
		}
		if bufs.arena != nil {
			t.Fatal("the buffers are in memory after the last request")
		}
	}
}

// A queue whose goroutines have all completed frees its buffers at its end.
func TestAsyncNothingOutAtTheEnd(t *testing.T) {
	requests := make(chan AsyncRequest, 1)
	n := 0
	q := serveNull(t, 1, HandlerFunc(func(req *Request) {
		if n++; n == 1 {
			requests <- req.Async()
		}
	}))
	if !within(t, requests, "a request").Complete(unix.ENOSPC) {
		t.Error("the result is not taken")
	}
	settled(t, q, func(s Stats) bool { return s.Ops[OpRead].Errors == 1 })
	bufs := q.bufs
	if err := q.kill(); !errors.Is(err, ErrKilled) {
		t.Fatalf("the queue ends with %v", err)
	}
	if bufs.arena != nil {
		t.Error("the buffers are in memory")
	}
}

// A device ends if its handler completes a request that the handler has given away or
// completed before, because another request may have the tag by then.
func TestCompletedTwice(t *testing.T) {
	for name, handle := range map[string]HandlerFunc{
		"complete, complete": func(req *Request) { req.Complete(nil); req.Complete(nil) },
		"async, complete":    func(req *Request) { req.Async(); req.Complete(nil) },
		"complete, async": func(req *Request) {
			req.Complete(nil)
			if req.Async().Complete(nil) {
				t.Error("a request that was completed takes another result")
			}
		},
		"async, async": func(req *Request) { req.Async(); req.Async() },
	} {
		t.Run(name, func(t *testing.T) {
			q := serveNull(t, 1, handle)
			if err := within(t, q.ends, "the queue's end"); !errors.Is(err, ErrCompleted) {
				t.Errorf("the queue ends with %v, want ErrCompleted", err)
			}
		})
	}
}

// A zero AsyncRequest cannot be completed.
func TestAsyncZero(t *testing.T) {
	if (AsyncRequest{}).Complete(nil) {
		t.Error("no request takes a result")
	}
}

// lateParts passes on the parts of requests.
type lateParts chan AsyncPart

func (l lateParts) NewHandler(*Queue) (Handler, error)         { return l, nil }
func (l lateParts) Handle(req *Request)                        { l <- req.AsyncPart(0) }
func (l lateParts) Done(req *Request, _ int32)                 { req.Complete(unix.EXFULL) }
func (l lateParts) PartDone(req *Request, _ int, result int32) { req.CompleteErrno(result) }

// A queue that has ended keeps no result of a part.
func TestAsyncPartAfterTheEnd(t *testing.T) {
	parts := make(lateParts, 2)
	q := serveNull(t, 1, parts)
	within(t, parts, "a part").Done(-int32(unix.ENOSPC))
	last := within(t, parts, "the part of the next request")
	if err := q.kill(); !errors.Is(err, ErrKilled) {
		t.Fatalf("the queue ends with %v", err)
	}
	last.Done(0)
	if n := len(q.async.results); n != 0 {
		t.Errorf("%d results after the end", n)
	}
}
