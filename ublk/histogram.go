package ublk

import (
	"math/bits"
	"sync/atomic"
	"time"
)

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
