package main

import (
	"fmt"
	"slices"
	"time"
)

// timeAttach makes and removes a device of a file several times.
func timeAttach(p *path, file string, times int) (Attach, error) {
	var attach, detach []time.Duration
	for range times {
		start := time.Now()
		device, err := p.attach(file)
		if err != nil {
			return Attach{}, fmt.Errorf("%s: attach: %w", p.name, err)
		}
		attached := time.Now()
		if err := p.detach(device); err != nil {
			return Attach{}, fmt.Errorf("%s: detach: %w", p.name, err)
		}
		attach = append(attach, attached.Sub(start))
		detach = append(detach, time.Since(attached))
	}
	return Attach{Path: p.name, Times: times, AttachNs: percentilesOf(attach), DetachNs: percentilesOf(detach)}, nil
}

// percentilesOf returns the percentiles of a sample: the smallest value that
// the share does not exceed.
func percentilesOf(sample []time.Duration) Percentile {
	slices.Sort(sample)
	at := func(share float64) float64 {
		rank := int(share*float64(len(sample)) + 0.999999)
		return float64(sample[min(max(rank, 1), len(sample))-1])
	}
	return Percentile{at(0.5), at(0.99), at(0.999)}
}
