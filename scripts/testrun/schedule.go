package main

import (
	"cmp"
	"context"
	"os/exec"
	"slices"
	"time"
)

// scheduler runs jobs in a number of slots. It starts the longest job first. A job
// occupies no slot while its supplies are being made, nor if its tests only wait.
type scheduler struct {
	slots    int
	work     func(ctx context.Context, j *job, cmd *exec.Cmd) (more []*job)
	fail     func(j *job, err error) // handles a job whose supplies cannot be made
	progress func(running []*job, waiting int)
	every    time.Duration // between two lines of progress
}

// ready is a job with its process, or with the reason why it has none.
type ready struct {
	job *job
	cmd *exec.Cmd
	err error
}

// end is a job that has ended, with the further jobs that follow from it.
type end struct {
	job  *job
	more []*job
}

// run runs all jobs and the further jobs that follow from them. It returns when all have
// ended, or when the context has ended and the running jobs have too.
func (s scheduler) run(ctx context.Context, jobs []*job) {
	prepared, ended := make(chan ready), make(chan end)
	pending := len(jobs)
	prepare(ctx, jobs, prepared)
	ticker := time.NewTicker(s.every)
	defer ticker.Stop()
	var waiting []ready
	running := &slots{number: s.slots}
	for pending > 0 {
		select {
		case r := <-prepared:
			if r.err == nil {
				waiting = append(waiting, r)
				break
			}
			pending--
			if ctx.Err() == nil {
				s.fail(r.job, r.err)
			}
		case e := <-ended:
			running.leave(e.job)
			pending += len(e.more) - 1
			prepare(ctx, e.more, prepared)
		case <-ticker.C:
			s.progress(running.busy, pending-len(running.busy))
		}
		if ctx.Err() != nil {
			pending -= len(waiting)
			waiting = nil
		}
		waiting = s.start(ctx, running, waiting, ended)
	}
}

// start starts each waiting job that a slot is free for, and returns the others.
func (s scheduler) start(ctx context.Context, running *slots, waiting []ready, ended chan<- end) []ready {
	for i := running.next(waiting); i >= 0; i = running.next(waiting) {
		r := waiting[i]
		waiting = slices.Delete(waiting, i, i+1)
		running.take(r.job)
		go func() { // received by run
			ended <- end{r.job, s.work(ctx, r.job, r.cmd)}
		}()
	}
	return waiting
}

// prepare waits for the supplies of all jobs at the same time, and sends each job to
// prepared when its supplies are there.
func prepare(ctx context.Context, jobs []*job, prepared chan<- ready) {
	for _, j := range jobs {
		go func() { // received by run
			cmd, err := j.command(ctx)
			prepared <- ready{j, cmd, err}
		}()
	}
}

// slots are the jobs that run, and how many may.
type slots struct {
	number int
	busy   []*job
}

// next returns the index of the waiting job that may start and is expected to take
// longest, or -1.
func (s *slots) next(waiting []ready) int {
	best := -1
	for i, r := range waiting {
		if s.mayStart(r.job) && (best < 0 || cmp.Less(waiting[best].job.expected, r.job.expected)) {
			best = i
		}
	}
	return best
}

// mayStart reports whether a job may start now. A job that takes several slots may also start if nothing
// else runs. If there are several slots, one job whose tests wait may run beside those that have a slot.
func (s *slots) mayStart(j *job) bool {
	if j.alone && slices.ContainsFunc(s.busy, func(other *job) bool { return other.bed == j.bed }) {
		return false
	}
	isExtra := func(j *job) bool { return j.waits && s.number > 1 }
	taken := 0
	for _, other := range s.busy {
		if isExtra(other) == isExtra(j) {
			taken += max(1, other.slots)
		}
	}
	return taken == 0 || !isExtra(j) && taken+max(1, j.slots) <= s.number
}

func (s *slots) take(j *job) { s.busy = append(s.busy, j) }
func (s *slots) leave(j *job) {
	s.busy = slices.DeleteFunc(s.busy, func(other *job) bool { return other == j })
}
