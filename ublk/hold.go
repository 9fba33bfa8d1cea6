package ublk

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
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
// wraps ETIMEDOUT. If the kernel completes requests by itself (Request.ForwardAndComplete), and
// does not count them because queue/iostats of the disk is 0, Hold returns an error that wraps
// errors.ErrUnsupported.
func (d *Device) Hold(patience time.Duration) (resume func(), err error) {
	inFlight, err := d.OpenInFlight()
	if errors.Is(err, os.ErrNotExist) {
		return d.hold(patience, nil) // the disk is gone
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = inFlight.Close() }()
	return d.hold(patience, inFlight)
}

// hold is Hold with the kernel's number of requests in flight, or nil.
func (d *Device) hold(patience time.Duration, inFlight *InFlight) (resume func(), err error) {
	h := &hold{d: d, inFlight: inFlight, held: make([]bool, len(d.queues)), linked: make([]bool, len(d.queues))}
	deadline := time.Now().Add(patience)
	if h.begin(deadline) && h.wait(deadline) {
		return h.end, nil
	}
	h.end()
	if h.uncounted {
		return nil, fmt.Errorf("hold device %d: the kernel does not count requests while queue/iostats of the disk is 0: %w", d.info.ID, errors.ErrUnsupported)
	}
	return nil, fmt.Errorf("hold device %d: requests have no result: %w", d.info.ID, unix.ETIMEDOUT)
}

// hold is a call of Hold.
type hold struct {
	d        *Device
	inFlight *InFlight // nil if the number is unknown
	over     atomic.Bool
	// held and linked have an element for each queue, which belongs to the thread of the queue until
	// begin has returned. linked says that the kernel may complete requests by itself.
	held, linked []bool
	uncounted    bool // the kernel does not count these requests
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
					h.held[i], h.linked[i] = true, q.linkable > 0
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
	if slices.Contains(h.linked, true) && h.inFlight.isOff() {
		h.uncounted = true
		return false
	}
	for !h.isQuiet() {
		if time.Now().After(deadline) {
			return false
		}
		<-time.After(time.Millisecond) // the numbers have no event
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
// then, nor does the kernel complete one by itself (Request.ForwardAndComplete). Only the kernel's
// number of requests in flight includes such requests. It also includes the kept ones.
func (h *hold) isQuiet() bool {
	held, inService := int64(0), int64(0)
	for _, c := range h.d.counters {
		held += c.held.Load()
		inService += c.inService.Load()
	}
	if inService > 0 || !slices.Contains(h.linked, true) || h.d.hasEnded() {
		return inService == 0
	}
	inFlight, known := h.inFlight.number()
	return known && inFlight == held
}

// hasEnded reports whether all queues have ended.
func (d *Device) hasEnded() bool {
	select {
	case <-d.done:
		return true
	default:
		return false
	}
}

// hold makes the queue keep new requests until as many calls of resume.
func (q *Queue) hold() {
	if q.holds++; q.holds == 1 {
		q.kept = make([]uint16, 0, q.depth)
	}
}

// keep keeps a request until resume. The kernel's number of requests in flight does not include
// flushes.
func (q *Queue) keep(req *Request) {
	q.kept = append(q.kept, req.tag)
	if req.decode(&q.descs[req.tag]); req.Op != OpFlush {
		q.counters.held.Add(1)
	}
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

// InFlight is the kernel's number of requests in flight to a disk, for [ServedQueues.Hold].
type InFlight struct {
	count    *os.File // inflight in sysfs
	counting *os.File // queue/iostats, 0 if the kernel does not count
}

// OpenInFlight opens the number of requests in flight to the device's disk. Another process needs
// no sysfs to read it.
func (d *Device) OpenInFlight() (*InFlight, error) {
	disk := fmt.Sprintf("/sys/block/ublkb%d/", d.info.ID)
	count, err := os.Open(disk + "inflight")
	if err != nil {
		return nil, err
	}
	counting, err := os.Open(disk + "queue/iostats")
	if err != nil {
		return nil, errors.Join(err, count.Close())
	}
	return &InFlight{count, counting}, nil
}

// NewInFlight makes an InFlight of the open Files of another one. It takes them over, unless it
// returns an error that wraps EINVAL, because that is not their number.
func NewInFlight(files []*os.File) (*InFlight, error) {
	if len(files) != 2 {
		return nil, fmt.Errorf("%d files for the number of requests in flight: %w", len(files), unix.EINVAL)
	}
	return &InFlight{files[0], files[1]}, nil
}

// Files returns the open files.
func (f *InFlight) Files() []*os.File { return []*os.File{f.count, f.counting} }

// Close closes the files.
func (f *InFlight) Close() error { return errors.Join(f.count.Close(), f.counting.Close()) }

// isOff reports whether the kernel does not count the requests.
func (f *InFlight) isOff() bool {
	if f == nil {
		return false
	}
	text, err := readAgain(f.counting)
	return err == nil && strings.TrimSpace(text) == "0"
}

// number returns the number of requests. It excludes flushes (blk_mq_check_in_driver in
// block/blk-mq.c).
func (f *InFlight) number() (n int64, known bool) {
	if f == nil {
		return 0, false
	}
	text, err := readAgain(f.count)
	if err != nil {
		return 0, false
	}
	for _, field := range strings.Fields(text) {
		count, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, false
		}
		n += count
	}
	return n, true
}

// readAgain reads an attribute, whose text is that of the time of the read.
func readAgain(attribute *os.File) (string, error) {
	var text [64]byte
	n, err := attribute.ReadAt(text[:], 0)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return string(text[:n]), err
}
