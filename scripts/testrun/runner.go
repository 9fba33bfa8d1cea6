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

// runner runs jobs and keeps their results.
type runner struct {
	out     io.Writer
	ledger  *ledger
	times   *times
	started time.Time
	// underWay names the supplies that are being fetched or built.
	underWay func() []string

	mu       sync.Mutex // protects the fields below
	current  map[*job]progress
	unsteady []string
}

// progress is how far a running job is.
type progress struct {
	since time.Time
	test  string // the test that is running
}

// mostRetries is how many tests may be tried again. More time-outs than that are not a
// coincidence.
const mostRetries = 3

func (r *runner) schedule(ctx context.Context, slots int, jobs []*job, every time.Duration) {
	scheduler{slots: slots, work: r.work, fail: r.fail, progress: r.report, every: every}.run(ctx, jobs)
}

// keep stores a result.
func (r *runner) keep(res result) {
	r.ledger.add(res)
	r.times.saw(res)
}

// fail marks all tests of a job that cannot run as failed.
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

// begin lists a job as running until the returned function is called.
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

// work runs a job. It returns further jobs for the tests that did not run.
func (r *runner) work(ctx context.Context, j *job, cmd *exec.Cmd) []*job {
	defer r.begin(j)()
	if j.plain {
		r.workPlain(ctx, j, cmd)
		return nil
	}
	seen, bad, wrong := map[string]bool{}, map[string]bool{}, false // wrong: a test failed for another reason than time
	s := newStream(r.out, j.bed, func(res result) {
		seen[res.Test] = true
		if res.failed() {
			bad[testName(res.Pkg, res.Test)] = true
			wrong = wrong || !res.onlyTime()
		}
		if res.failed() || !bad[testName(res.Pkg, res.Test)] { // one success does not undo a failure before it
			r.keep(res)
		}
	})
	s.pkgDir = j.directory
	err := follow(ctx, cmd, j.pkg, func(e event) {
		s.add(e)
		if e.Action == "run" {
			r.runs(j, e.Test)
		}
	})
	if ctx.Err() != nil {
		return nil // the results of the other tests are unknown
	}
	onlyTime := s.death.isOnlyTime(j.console)
	s.finish(err != nil && onlyTime)
	missing := j.missing(seen)
	switch {
	case err != nil && len(bad) == 0:
		r.blame(j, s, err, missing, onlyTime)
	case err != nil && j.planned != nil && !wrong && (s.death.other || complains(j.console)):
		s.failPackage(key{pkg: j.pkg}) // its tests may be tried again, which must not forgive this
	case !wrong && complains(j.console):
		s.failPackageWith(key{pkg: j.pkg}, "kernel log, outside of the tests: "+complaint(j.console))
	}
	if len(missing) > 0 {
		return r.goOn(j, s, err, missing, onlyTime)
	}
	if err == nil && len(bad) == 0 && j.whole {
		r.ledger.finish(j.title)
	}
	return nil
}

// blame assigns the failure of a process in which no test failed. The failure belongs to
// the package, or to the machine if that took too long while further tests were to come.
// If no test ran at all, goOn decides.
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

// goOn handles the planned tests that a job did not reach. If the job has reached any
// test, or its machine took too long to start for the first time, another job runs them.
// Otherwise they fail.
func (r *runner) goOn(j *job, s *stream, err error, missing []string, onlyTime bool) []*job {
	cameUp := len(missing) < len(j.planned)
	if err != nil && (cameUp || onlyTime && !j.second) {
		next := j.rest(missing)
		next.second = !cameUp
		fmt.Fprintf(r.out, "-- %s: %v: %s; %d tests are left for another\n", j.title, err, lastLine(s.text.String()), len(missing))
		return []*job{next}
	}
	if err == nil {
		err = errors.New("they did not run")
	}
	fmt.Fprintf(r.out, "FAIL  %-6s %s, %d tests: %v\n%s", j.bed, j.title, len(missing), err, s.text.String())
	r.failAll(j, missing)
	return nil
}

func lastLine(text string) string {
	text = strings.TrimSpace(text)
	return text[strings.LastIndexByte(text, '\n')+1:]
}

// workPlain runs a job whose only result is the exit status.
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

// tryAgain repeats tests that failed only because they took too long. Each runs twice
// more, with nothing beside it. A test that passes both times counts as passed and as
// unsteady. again returns the job that repeats a result.
func (r *runner) tryAgain(ctx context.Context, again func(result) *job, every time.Duration) {
	var slow []result
	for _, res := range r.ledger.all() {
		if res.onlyTime() {
			slow = append(slow, res)
		}
	}
	if len(slow) > mostRetries {
		fmt.Fprintf(r.out, "-- %d tests timed out, too many to try again\n", len(slow))
		return
	}
	for _, res := range slow {
		fmt.Fprintf(r.out, "-- %s only timed out: running it twice more, by itself\n", res)
		if best, ok := r.twice(ctx, res, again, every); ok {
			r.keep(best)
			r.callUnsteady(res.String())
		}
	}
}

// twice reports whether a test passes twice in a row, and returns the last result.
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
