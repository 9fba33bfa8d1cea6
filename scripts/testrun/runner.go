package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"
)

// runner runs jobs and keeps what comes of them.
type runner struct {
	out     io.Writer
	ledger  *ledger
	times   *times
	started time.Time
	// underWay names what is being fetched or built.
	underWay func() []string

	mu       sync.Mutex // protects what is below
	current  map[*job]progress
	unsteady []string
}

// progress is where a running job is.
type progress struct {
	since time.Time
	test  string // that runs
}

// mostRetries is how many tests may be tried again. More time-outs are no chance.
const mostRetries = 3

func (r *runner) schedule(ctx context.Context, slots int, jobs []*job, every time.Duration) {
	scheduler{slots: slots, work: r.work, fail: r.fail, progress: r.report, every: every}.run(ctx, jobs)
}

// keep takes a result.
func (r *runner) keep(res result) {
	r.ledger.add(res)
	r.times.saw(res)
}

// fail fails all tests of a job that cannot run.
func (r *runner) fail(j *job, err error) {
	fmt.Fprintf(r.out, "FAIL  %-6s %s, %d tests: %v\n", j.bed, j.title, max(1, len(j.planned)), err)
	r.failAll(j, j.planned)
	if len(j.planned) == 0 {
		r.keep(result{Bed: j.bed, Pkg: j.title, Leaves: []leaf{{How: failed}}})
	}
}

func (r *runner) failAll(j *job, names []string) {
	for _, name := range names {
		r.keep(result{Bed: j.bed, Pkg: j.pkg, Test: name, Leaves: []leaf{{Name: name, How: failed}}})
	}
}

// begin counts a job as running until the returned function is called.
func (r *runner) begin(j *job) (end func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.current[j] = progress{since: time.Now()}
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.current, j)
	}
}

// work runs a job. It returns what is left to run of it.
func (r *runner) work(ctx context.Context, j *job, cmd *exec.Cmd) []*job {
	defer r.begin(j)()
	if j.plain {
		r.workPlain(ctx, j, cmd)
		return nil
	}
	seen, bad := map[string]bool{}, false
	s := newStream(r.out, j.bed, func(res result) {
		seen[res.Test] = true
		bad = bad || res.failed()
		r.keep(res)
	})
	if j.pkgDir != nil {
		s.pkgDir = j.pkgDir
	}
	err := follow(ctx, cmd, j.pkg, func(e event) {
		s.add(e)
		if e.Action == "run" {
			r.runs(j, e.Test)
		}
	})
	if ctx.Err() != nil {
		return nil // what did not end is not known
	}
	onlyTime := s.death.isOnlyTime(j.console)
	s.finish(err != nil && onlyTime)
	missing := j.missing(seen)
	if err != nil && !bad {
		r.blame(j, s, err, missing, onlyTime)
	}
	if len(missing) > 0 {
		return r.goOn(j, s, err, missing, onlyTime)
	}
	if err == nil && !bad && j.planned == nil {
		r.ledger.finish(j.title)
	}
	return nil
}

// blame finds what has failed if a process did and no test did: its package, or
// its machine that took too long while further tests were to come. If no test ran
// at all, goOn decides.
func (r *runner) blame(j *job, s *stream, err error, missing []string, onlyTime bool) {
	cameUp := len(missing) < len(j.planned) || j.planned == nil
	switch {
	case onlyTime && len(missing) > 0:
		r.callUnsteady(j.bed + " machine")
	case cameUp:
		s.text.WriteString(err.Error() + "\n")
		s.failPackage(key{pkg: j.pkg})
	}
}

// goOn does with the tests that a job did not come to what is possible: if it has
// got on at all, or its machine took too long to come up for the first time, they
// run in another.
func (r *runner) goOn(j *job, s *stream, err error, missing []string, onlyTime bool) []*job {
	cameUp := len(missing) < len(j.planned)
	if err != nil && (cameUp || onlyTime && !j.second) {
		next := j.rest(missing)
		next.second = !cameUp
		fmt.Fprintf(r.out, "-- %s: %v: %s; %d tests are left for another\n", j.title, err, lastLine(s.text.String()), len(missing))
		return []*job{next}
	}
	if err == nil {
		err = errors.New("they have not run")
	}
	fmt.Fprintf(r.out, "FAIL  %-6s %s, %d tests: %v\n%s", j.bed, j.title, len(missing), err, s.text.String())
	r.failAll(j, missing)
	return nil
}

func lastLine(text string) string {
	text = strings.TrimSpace(text)
	return text[strings.LastIndexByte(text, '\n')+1:]
}

// workPlain runs a job whose exit status is its only result.
func (r *runner) workPlain(ctx context.Context, j *job, cmd *exec.Cmd) {
	inGroup(cmd)
	began := time.Now()
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		return
	}
	res := result{Bed: j.bed, Pkg: j.pkg, Test: j.planned[0], Seconds: time.Since(began).Seconds()}
	how, word, said := passed, "ok  ", ""
	if err != nil {
		how, word, said = failed, "FAIL", fmt.Sprintf("%s%v\n", out, err)
	}
	res.Leaves = []leaf{{Name: res.Test, How: how}}
	fmt.Fprintf(r.out, "%s  %-6s %s (%.2fs)\n%s", word, j.bed, testName(j.pkg, res.Test), res.Seconds, said)
	r.keep(res)
}

func (r *runner) callUnsteady(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Contains(r.unsteady, name) {
		r.unsteady = append(r.unsteady, name)
	}
}

// tryAgain runs tests that have only taken too long twice more, each by itself and
// with nothing beside it. One that passes both times counts as passed, and is
// unsteady. again returns the job for a result.
func (r *runner) tryAgain(ctx context.Context, again func(result) *job, every time.Duration) {
	var slow []result
	for _, res := range r.ledger.all() {
		if res.onlyTime() {
			slow = append(slow, res)
		}
	}
	if len(slow) > mostRetries {
		fmt.Fprintf(r.out, "-- %d tests have timed out: they are not tried again\n", len(slow))
		return
	}
	for _, res := range slow {
		fmt.Fprintf(r.out, "-- %s has only timed out: twice more, by itself\n", res)
		if best, ok := r.twice(ctx, res, again, every); ok {
			r.keep(best)
			r.callUnsteady(res.String())
		}
	}
}

// twice reports whether a test passes twice, and returns the last result.
func (r *runner) twice(ctx context.Context, res result, again func(result) *job, every time.Duration) (result, bool) {
	var last result
	for range 2 {
		try := &runner{out: r.out, ledger: newLedger(), times: r.times, started: r.started, underWay: r.underWay, current: map[*job]progress{}}
		try.schedule(ctx, 1, []*job{again(res)}, every)
		all := try.ledger.all()
		if i := slices.IndexFunc(all, func(other result) bool { return other.String() == res.String() }); i >= 0 {
			last = all[i]
		} else {
			return last, false
		}
		if slices.ContainsFunc(all, result.failed) || last.count(passed) == 0 {
			return last, false
		}
	}
	return last, true
}
