package main

import (
	"regexp"
	"strings"
	"testing"
)

// A run that resumes another one leaves out the tests that need no kernel only if the other one
// had all of them.
func TestPartOfAModuleIsNotDone(t *testing.T) {
	for _, o := range []*options{{}, {packages: []string{"loop"}}, {run: regexp.MustCompile("TestA")}} {
		runner, out := testRunner()
		r := &run{options: o, runner: runner, builder: &builder{}, pkgs: []*pkg{{Dir: "loop", module: "."}}}
		jobs := r.hereJobs()
		if len(jobs) != 1 {
			t.Fatalf("%d jobs", len(jobs))
		}
		j := shellJob(nil, passing("TestA"))
		j.title, j.whole = jobs[0].title, jobs[0].whole
		runner.schedule(t.Context(), 1, []*job{j}, never)
		if isNarrow := len(o.packages) > 0 || o.run != nil; len(r.hereJobs()) > 0 != isNarrow {
			t.Errorf("packages %q, run %v: %d jobs are left; printed:\n%s", o.packages, o.run, len(r.hereJobs()), out)
		}
	}
}

// A test of which only some subtests ran has not run for a run that resumes.
func TestSubtestsAreNotTheTest(t *testing.T) {
	all, part := &options{tier: full, count: 1}, &options{tier: full, count: 1, runText: "TestA"}
	if all.settingsKey() != part.settingsKey() {
		t.Errorf("%s and %s", all.settingsKey(), part.settingsKey())
	}
	part.runText += "/x"
	if key := part.settingsKey(); key == all.settingsKey() || strings.Contains(key, "/") {
		t.Errorf("%s and %s", all.settingsKey(), key)
	}
}
