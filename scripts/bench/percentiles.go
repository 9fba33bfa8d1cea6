package main

import (
	"slices"
	"time"
)

// percentilesOf returns the percentiles of a sample. A percentile is the
// smallest value that at least the given share of the sample does not exceed.
func percentilesOf(sample []time.Duration) Percentile {
	slices.Sort(sample)
	at := func(share float64) float64 {
		rank := int(share*float64(len(sample)) + 0.999999)
		return float64(sample[min(max(rank, 1), len(sample))-1])
	}
	return Percentile{at(0.5), at(0.99), at(0.999)}
}
