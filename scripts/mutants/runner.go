package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// progressEvery is the time between two messages about the progress.
const progressEvery = 20 * time.Second

// runner runs several mutants at once.
type runner struct {
	results *results

	lock   sync.Mutex // protects report and err
	report *report
	err    error
}

// runAll runs the tests against each mutant. It returns the results so far even if an
// error ended the run.
func runAll(ctx context.Context, o *options, chosen []*mutant, kept *results) (*report, error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	r := &runner{results: kept, report: &report{total: len(chosen), results: map[*mutant]*result{}}}
	queue := make(chan *mutant, len(chosen))
	for _, m := range chosen {
		queue <- m
	}
	close(queue)
	var workers sync.WaitGroup
	for range max(1, o.jobs) {
		workers.Go(func() { // ends when the queue is empty or stop is called
			for m := range queue {
				if r.one(ctx, m) != nil {
					stop()
				}
			}
		})
	}
	finished := make(chan struct{})
	go func() { // ends when the workers have ended
		workers.Wait()
		close(finished)
	}()
	r.showProgress(finished)
	return r.report, errors.Join(r.err, kept.prune())
}

// one runs the tests of one mutant, tier by tier, until a test catches it, and keeps the
// result. An error ends the whole run.
func (r *runner) one(ctx context.Context, m *mutant) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	found, err := r.runTiers(ctx, m)
	r.lock.Lock()
	defer r.lock.Unlock()
	if err == nil {
		r.report.results[m] = found
	} else if r.err == nil {
		r.err = fmt.Errorf("%s at %s:%d: %w", m.id(), m.file, m.line, err)
	}
	return err
}

func (r *runner) runTiers(ctx context.Context, m *mutant) (*result, error) {
	found := &result{}
	for _, covered := range m.covered {
		t := covered.tier
		if kept := r.results.load(m, t); kept != nil && !m.verbose {
			found = kept
		} else {
			var err error
			if found, err = t.try(ctx, m, covered.tests); err != nil {
				return nil, err
			}
			if err := r.keep(m, t, found); err != nil {
				return nil, err
			}
		}
		if found.Caught {
			break
		}
	}
	return found, nil
}

// keep saves a result if the package has not changed since the run began.
func (r *runner) keep(m *mutant, t *tier, found *result) error {
	now, err := digest(m.pkg.tested)
	if err != nil {
		return err
	}
	if now != m.pkg.digest {
		return fmt.Errorf("the source of %s changed during the run", m.pkg.dir)
	}
	return r.results.save(m, t, found)
}

func (r *runner) showProgress(finished chan struct{}) {
	ticker := time.NewTicker(progressEvery)
	defer ticker.Stop()
	for {
		select {
		case <-finished:
			return
		case <-ticker.C:
			r.lock.Lock()
			fmt.Println("mutants:", r.report.progress())
			r.lock.Unlock()
		}
	}
}
