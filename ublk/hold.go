package ublk

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Hold makes the queues keep all new requests, and returns when all other requests have a
// result. Then no operation on the device's files is running. resume gives the kept requests to
// the handlers. If the process ends instead, the next server gets them, provided that the device
// has UBLK_F_USER_RECOVERY_REISSUE.
//
// If a request has no result within patience, Hold resumes the device and returns an error that
// wraps ETIMEDOUT.
func (d *Device) Hold(patience time.Duration) (resume func(), err error) {
	file, err := os.Open(inFlightPath(d.info.ID))
	if err != nil { // the driver has no disk; then only the queues count
		return d.hold(patience, nil)
	}
	defer func() { _ = file.Close() }()
	return d.hold(patience, file)
}

// hold is Hold with the open file of the disk's requests in flight, or nil.
func (d *Device) hold(patience time.Duration, inFlight *os.File) (resume func(), err error) {
	h := &hold{d: d, inFlight: inFlight, held: make([]bool, len(d.queues))}
	deadline := time.Now().Add(patience)
	if h.begin(deadline) && h.wait(deadline) {
		return h.end, nil
	}
	h.end()
	return nil, fmt.Errorf("hold device %d: requests have no result: %w", d.info.ID, unix.ETIMEDOUT)
}

// hold is a call of Hold.
type hold struct {
	d        *Device
	inFlight *os.File // nil if the number is unknown
	over     atomic.Bool
	held     []bool // by queue; each belongs to the thread of its queue
}

// begin makes all queues keep new requests, and reports whether they do so in time. A blocked
// thread does not answer. When it answers later, the hold may be over.
func (h *hold) begin(deadline time.Time) bool {
	begun := make(chan struct{}, len(h.d.queues))
	for i, q := range h.d.queues {
		go func() { // ends when the thread answers or ends
			_ = q.thread.do(func() error {
				if !h.over.Load() {
					q.hold()
					h.held[i] = true
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

// wait waits until all requests but the kept ones have a result, and reports whether they do in
// time.
func (h *hold) wait(deadline time.Time) bool {
	for !h.d.isQuiet(h.inFlight) {
		if time.Now().After(deadline) {
			return false
		}
		<-time.After(time.Millisecond)
	}
	return true
}

// end makes the queues go on. It does not wait for blocked threads, so the next hold of a queue
// can begin before this one ends there.
func (h *hold) end() {
	h.over.Store(true)
	for i, q := range h.d.queues {
		go func() { // ends when the thread answers or ends
			_ = q.thread.do(func() error {
				if h.held[i] {
					q.resume()
				}
				return nil
			})
		}()
	}
}

// isQuiet reports whether the queues keep all requests of the device. No handler has a request
// then, nor does the kernel complete one by itself (Request.ForwardAndComplete). The driver's
// number of requests in flight includes such requests.
func (d *Device) isQuiet(file *os.File) bool {
	held, inService := int64(0), int64(0)
	for _, c := range d.counters {
		held += c.held.Load()
		inService += c.inService.Load()
	}
	inFlight, known := requestsInFlight(file)
	return inService == 0 && (!known || inFlight <= held)
}

// inFlightPath is the file with the number of a disk's reads and writes in flight.
func inFlightPath(id uint32) string { return fmt.Sprintf("/sys/block/ublkb%d/inflight", id) }

// requestsInFlight returns the number of a disk's reads and writes in flight, from a file of
// sysfs. It excludes flushes.
func requestsInFlight(file *os.File) (n int64, known bool) {
	if file == nil {
		return 0, false
	}
	data := make([]byte, 64)
	length, err := file.ReadAt(data, 0) // which has the numbers at the time of the read
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, false
	}
	for _, field := range strings.Fields(string(data[:length])) {
		count, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, false
		}
		n += count
	}
	return n, true
}

// hold makes the queue keep new requests until as many calls of resume.
func (q *Queue) hold() {
	if q.holds++; q.holds == 1 {
		q.kept = make([]uint16, 0, q.depth)
	}
}

// keep keeps a request until resume.
func (q *Queue) keep(req *Request) {
	q.kept = append(q.kept, req.tag)
	q.counters.held.Store(int64(len(q.kept)))
}

// resume gives the kept requests to the handler, unless another hold goes on.
func (q *Queue) resume() {
	if q.holds--; q.holds > 0 {
		return
	}
	for _, tag := range q.kept {
		q.accept(&q.reqs[tag])
	}
	q.kept = nil
	q.counters.held.Store(0)
	q.endTurn()
}

// OnThreads calls a function for the handler of each queue, on the queue's thread, one after
// another. It stops at the first error, and returns it. The function must not block.
func (d *Device) OnThreads(f func(Handler) error) error {
	for _, q := range d.queues {
		if err := q.thread.do(func() error { return f(q.handler) }); err != nil {
			return err
		}
	}
	return nil
}
