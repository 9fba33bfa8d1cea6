package ublk

import (
	"testing"
	"time"
)

// A duration is in the first bucket whose bound it does not exceed.
func TestDurationBuckets(t *testing.T) {
	for d, want := range map[time.Duration]int{
		-1: 0, 0: 0, 1: 0, 1024: 0, 1025: 1, 2048: 1, 2049: 2, time.Millisecond: 10, time.Second: 20,
		1 << 31: 21, 1<<31 + 1: 22, time.Hour: 22,
	} {
		got := durationBucket(d)
		if got != want {
			t.Errorf("%v is in bucket %d, want %d", d, got, want)
		}
		if bound := DurationBound(got); bound != 0 && d > bound {
			t.Errorf("%v is in the bucket up to %v", d, bound)
		}
		if got > 0 && d <= DurationBound(got-1) {
			t.Errorf("%v is in a bucket after %v", d, DurationBound(got-1))
		}
	}
	if last := DurationBound(DurationBuckets - 1); last != 0 {
		t.Errorf("the last bucket ends at %v", last)
	}
}

func TestHistogram(t *testing.T) {
	var h histogram
	for _, d := range []time.Duration{500, 3000, 3000, time.Hour} {
		h.observe(d)
	}
	var got Histogram
	h.addTo(&got)
	h.addTo(&got) // as for another queue
	if got.Count() != 8 || got.Buckets[0] != 2 || got.Buckets[2] != 4 || got.Buckets[22] != 2 || got.Sum != 2*(6500+time.Hour) {
		t.Errorf("histogram is %+v", got)
	}
}
