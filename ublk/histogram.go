package ublk

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// DurationBuckets is the number of a Histogram's buckets. All but the last
// have a bound, each twice the one before, from 1.024 µs to 2.1 s.
const DurationBuckets = 23

// durationUnit is the bound of the first bucket, as a power of two of a
// nanosecond: bounds that are such powers are found without a division.
const durationUnit = 10

// DurationBound returns the longest duration that a bucket has, 0 for the last,
// which has all that are longer.
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

// Histogram says how many requests took how long.
type Histogram struct {
	// Buckets has in each place the number of those that are longer than the
	// DurationBound before and not longer than its own.
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
