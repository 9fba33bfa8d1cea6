package ublk

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Hold makes the queues keep the requests that come from here on, and returns when the
// device has no other: then no operation on its files is running. Resume hands the
// requests to the handlers. A process that ends instead leaves them to the next server, if
// the device has UBLK_F_USER_RECOVERY_REISSUE.
//
// Hold returns an error that wraps ETIMEDOUT, and has resumed the device, if a request has
// no result within patience.
func (d *Device) Hold(patience time.Duration) (resume func(), err error) {
	h := &hold{d: d}
	deadline := time.Now().Add(patience)
	if h.begin(deadline) && h.wait(deadline) {
		return h.end, nil
	}
	h.end()
	return nil, fmt.Errorf("hold device %d: requests have no result: %w", d.info.ID, unix.ETIMEDOUT)
}

// hold is a Hold of a device.
type hold struct {
	d    *Device
	over atomic.Bool
}

// begin reports whether all queues keep what comes. A thread that is blocked does not
// answer; when it does, the hold may be over.
func (h *hold) begin(deadline time.Time) bool {
	begun := make(chan struct{}, len(h.d.queues))
	for _, q := range h.d.queues {
		go func() { // ends when the thread answers or ends
			_ = q.thread.do(func() error {
				if !h.over.Load() {
					q.hold()
				}
				return nil
			})
			begun <- struct{}{}
		}()
	}
	timeout := time.After(time.Until(deadline))
	for range h.d.queues {
		select {
		case <-begun:
		case <-timeout:
			return false
		}
	}
	return true
}

// wait reports whether all requests have a result but those that the queues keep.
func (h *hold) wait(deadline time.Time) bool {
	for !h.d.isQuiet() {
		if time.Now().After(deadline) {
			return false
		}
		<-time.After(time.Millisecond)
	}
	return true
}

// end makes the queues go on. It does not wait for threads that are blocked.
func (h *hold) end() {
	h.over.Store(true)
	for _, q := range h.d.queues {
		go func() { // ends when the thread answers or ends
			_ = q.thread.do(func() error { q.resume(); return nil })
		}()
	}
}

// isQuiet reports whether nobody but the queues has a request: neither a handler, nor the
// kernel, which completes requests by itself (Request.ForwardAndComplete). The driver
// counts the latter among its own.
func (d *Device) isQuiet() bool {
	held, inService := int64(0), int64(0)
	for _, c := range d.counters {
		held += c.held.Load()
		inService += c.inService.Load()
	}
	inFlight, known := requestsInFlight(fmt.Sprintf("/sys/block/ublkb%d/inflight", d.info.ID))
	return inService == 0 && (!known || inFlight <= held)
}

// requestsInFlight returns the number of reads and writes that a disk has, by a file of
// sysfs. Flushes are not among them.
func requestsInFlight(path string) (n int64, known bool) {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, false
	}
	for _, field := range strings.Fields(string(data)) {
		count, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, false
		}
		n += count
	}
	return n, true
}

// hold keeps the requests that come.
func (q *Queue) hold() {
	q.holds = true
	q.kept = make([]uint16, 0, q.depth)
}

// keep keeps a request until resume.
func (q *Queue) keep(req *Request) {
	q.kept = append(q.kept, req.tag)
	q.counters.held.Store(int64(len(q.kept)))
}

// resume delivers the requests that the queue has kept.
func (q *Queue) resume() {
	q.holds = false
	for _, tag := range q.kept {
		q.accept(&q.reqs[tag])
	}
	q.kept = nil
	q.counters.held.Store(0)
	q.endTurn()
}
