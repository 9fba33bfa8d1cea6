package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// runs notes which test a job is running.
func (r *runner) runs(j *job, test string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.current[j]
	p.test = test
	r.current[j] = p
}

// report prints a line of progress.
func (r *runner) report(running []*job, waiting int) {
	done, bad := 0, 0
	for _, res := range r.ledger.all() {
		done++
		if res.failed() {
			bad++
		}
	}
	r.mu.Lock()
	var words []string
	for _, j := range running {
		p := r.current[j]
		words = append(words, strings.TrimSpace(fmt.Sprintf("%s %s %s", j.title, short(time.Since(p.since)), p.test)))
	}
	r.mu.Unlock()
	slices.Sort(words)
	line := fmt.Sprintf("%s: %d done, %d failed; %d jobs wait", short(time.Since(r.started)), done, bad, waiting)
	if len(words) > 0 {
		line += "; running: " + strings.Join(words, ", ")
	}
	if made := r.underWay(); len(made) > 0 {
		line += "; being fetched or built: " + strings.Join(made, ", ")
	}
	fmt.Fprintf(r.out, "-- %s\n", line)
}

// meanwhile calls a function that runs no job yet, and prints lines of progress until it
// returns.
func (r *runner) meanwhile(every time.Duration, call func()) {
	done := make(chan struct{})
	go func() { // received below
		defer close(done)
		call()
	}()
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-done:
			return
		case <-ticker.C:
			r.report(nil, 0)
		}
	}
}

// short prints a duration in whole seconds.
func short(d time.Duration) string { return d.Round(time.Second).String() }
