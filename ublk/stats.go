package ublk

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// Stats count what a device's queues have done since its Start. They are not a snapshot: they
// may include a request in one number and not in another.
type Stats struct {
	Ops [opCount]OpStats // by Op; elements without an Op stay zero
	// InService is the number of requests that the handlers had when each queue last
	// waited for more. It excludes requests that the kernel completes by itself
	// (Request.ForwardAndComplete).
	InService int
	// Retries counts repeated operations (Request.Retried).
	Retries uint64
	// Fallbacks counts requests in mode BufferAutoRegister whose pages a command had to
	// register, because the driver could not.
	Fallbacks uint64
}

// opCount is the length of an array with an element for each Op.
const opCount = OpWriteZeroes + 1

// OpStats are the Stats of one operation.
type OpStats struct {
	Requests uint64 // completed requests, including failed ones
	Bytes    uint64 // of these requests
	Errors   uint64 // failed requests
	// Duration is the time from the turn of the queue's thread in which a request comes
	// to the turn in which its result comes. It has a sample of one in 128 of the reads
	// and writes that the kernel can complete by itself (Request.ForwardAndComplete), and
	// all other requests, except for those that a Completer completes in Handle.
	Duration Histogram
}

// Stats returns the device's statistics. It takes no lock, and may be called in every state.
func (d *Device) Stats() Stats {
	var sum Stats
	for _, c := range d.counters {
		c.addTo(&sum)
	}
	return sum
}

// counters are a queue's part of Stats. Only the queue's thread writes them. The space around
// them keeps the counters of other queues out of their cache lines, which processors read in
// pairs.
type counters struct {
	_ [128]byte

	ops       [opCount]opCounters
	inService atomic.Int64
	held      atomic.Int64 // requests that the queue keeps (Device.Hold)
	retries   atomic.Uint64
	fallbacks atomic.Uint64

	_ [128]byte
}

type opCounters struct {
	requests, bytes, errors atomic.Uint64
	duration                histogram
}

// newCounters returns the counters of each queue.
func newCounters(queues int) []*counters {
	list := make([]*counters, queues)
	for i := range list {
		list[i] = &counters{}
	}
	return list
}

func (c *counters) addTo(sum *Stats) {
	for op := range c.ops {
		from, to := &c.ops[op], &sum.Ops[op]
		to.Requests += from.requests.Load()
		to.Bytes += from.bytes.Load()
		to.Errors += from.errors.Load()
		from.duration.addTo(&to.Duration)
	}
	sum.InService += int(c.inService.Load())
	sum.Retries += c.retries.Load()
	sum.Fallbacks += c.fallbacks.Load()
}

// DurationBuckets is the number of a Histogram's buckets. All buckets but the last have an
// upper bound. The bounds double from 1.024 µs to 2.1 s.
const DurationBuckets = 23

// durationUnit is the binary logarithm of the first bound in nanoseconds. All bounds are
// powers of two, so finding a bucket needs no division.
const durationUnit = 10

// DurationBound returns the longest duration in a bucket. It returns 0 for the last bucket,
// which has no bound.
func DurationBound(bucket int) time.Duration {
	if bucket >= DurationBuckets-1 {
		return 0
	}
	return 1 << (durationUnit + bucket)
}

// durationBucket returns the bucket of a duration.
func durationBucket(d time.Duration) int {
	if d <= 0 {
		return 0
	}
	return min(bits.Len64(uint64(d-1)>>durationUnit), DurationBuckets-1)
}

// Histogram counts requests by their duration.
type Histogram struct {
	// Buckets has the number of requests in each bucket: longer than the bound of the
	// bucket before it, and at most as long as its own DurationBound.
	Buckets [DurationBuckets]uint64
	Sum     time.Duration
}

// Count returns the number of requests in all buckets.
func (h *Histogram) Count() uint64 {
	n := uint64(0)
	for _, b := range h.Buckets {
		n += b
	}
	return n
}

// histogram is a Histogram that one thread writes and others read.
type histogram struct {
	buckets [DurationBuckets]atomic.Uint64
	sum     atomic.Uint64 // nanoseconds
}

func (h *histogram) observe(d time.Duration) {
	h.buckets[durationBucket(d)].Add(1)
	h.sum.Add(uint64(d))
}

func (h *histogram) addTo(sum *Histogram) {
	for i := range h.buckets {
		sum.Buckets[i] += h.buckets[i].Load()
	}
	sum.Sum += time.Duration(h.sum.Load())
}
