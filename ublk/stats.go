package ublk

import (
	"sync/atomic"
)

// Stats are what a device's queues have done since its Start. They are no
// snapshot: what a request changes may be there in part.
type Stats struct {
	Ops [opCount]OpStats // by Op; those of numbers that are no Op stay zero
	// InService is the number of requests that the handlers had, when each queue
	// last waited for more. A request that the kernel completes by itself
	// (Request.ForwardAndComplete) is not among them.
	InService int
	// Retries counts what handlers had to ask for again (Request.Retried).
	Retries uint64
	// Fallbacks counts requests whose pages the driver could not register by
	// itself, in BufferAutoRegister, so that a command had to.
	Fallbacks uint64
}

// opCount is the number of an array's places that has one for each Op.
const opCount = OpWriteZeroes + 1

// OpStats are the part of Stats that is about one operation.
type OpStats struct {
	Requests uint64 // that have been completed, those that failed among them
	Bytes    uint64 // of all these requests
	Errors   uint64 // how many of them failed
	// Duration is the time from the turn of the queue's thread in which a request
	// comes to the turn in which its result does. Of the reads and writes that the
	// kernel completes by itself (Request.ForwardAndComplete) it has a sample, one in
	// 128. What a Completer's Handle completes is not timed. All others are.
	Duration Histogram
}

// Stats returns what the device has done so far. It takes no lock, and may be
// called in every state.
func (d *Device) Stats() Stats {
	var sum Stats
	for _, c := range d.counters {
		c.addTo(&sum)
	}
	return sum
}

// counters are a queue's part of Stats. The queue's thread alone writes them,
// and what is around them keeps other queues' out of the processor's cache
// lines, which are read in pairs.
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

// newCounters returns those of each queue.
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
