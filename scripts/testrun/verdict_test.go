package main

import (
	"testing"
)

// A test may be tried again only if it timed out in waiting and cannot have another
// error.
func TestOnlyTime(t *testing.T) {
	const waited = `run p TestA -
		attr p TestA timed-out="the end"
		output p TestA     a_test.go:1: timed out after 5s: waiting for the end
		`
	for _, c := range []struct {
		name, stream string
		onlyTime     bool
	}{
		{"a time-out", waited + "fail p TestA -", true},
		{"wrong data", `run p TestA -
			output p TestA     a_test.go:1: wrong data
			fail p TestA -`, false},
		{"a failure without a word", "run p TestA -\nfail p TestA -", false},
		{"the words of a time-out, which was not the first failure", `run p TestA -
			output p TestA     a_test.go:1: wrong data
			output p TestA     a_test.go:2: timed out after 5s: waiting for the end
			fail p TestA -`, false},
		{"a log before the time-out", "run p TestA -\noutput p TestA     a_test.go:1: three rounds\n" + waited + "fail p TestA -", true},
		{"a leak behind the time-out", waited + `output p TestA     kernel.go:1: left behind: device
			fail p TestA -`, false},
		{"a complaint of the kernel behind the time-out", waited + `output p TestA     kernel.go:1: kernel log: WARNING: x
			fail p TestA -`, false},
		{"a detail behind the time-out", waited + `output p TestA     a_test.go:9: detail: 3 are left
			fail p TestA -`, true},
		{"a data race", "run p TestA -\noutput p TestA WARNING: DATA RACE\n" + waited + "fail p TestA -", false},
		{"in a subtest", `run p TestA -
			run p TestA/x -
			attr p TestA/x timed-out="y"
			output p TestA/x     a_test.go:1: timed out after 5s: waiting for y
			fail p TestA/x -
			fail p TestA -`, true},
		{"in a subtest whose parent complains, too", `run p TestA -
			run p TestA/x -
			attr p TestA/x timed-out="y"
			output p TestA/x     a_test.go:1: timed out after 5s: waiting for y
			fail p TestA/x -
			output p TestA     a_test.go:1: 2 devices are left
			fail p TestA -`, false},
		{"in a subtest whose parent had failed before", `run p TestA -
			output p TestA     a_test.go:1: wrong data
			run p TestA/x -
			attr p TestA/x timed-out="y"
			output p TestA/x     a_test.go:1: timed out after 5s: waiting for y
			fail p TestA/x -
			fail p TestA -`, false},
		{"in one subtest of two that fail", `run p TestA -
			run p TestA/x -
			attr p TestA/x timed-out="y"
			output p TestA/x     a_test.go:1: timed out after 5s: waiting for y
			fail p TestA/x -
			run p TestA/z -
			output p TestA/z     a_test.go:1: wrong data
			fail p TestA/z -
			fail p TestA -`, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := events(t, c.stream)
			if len(f.results) != 1 || f.results[0].onlyTime() != c.onlyTime {
				t.Errorf("results are %+v, want only time: %v", f.results, c.onlyTime)
			}
		})
	}
}

// A test that did not end only took too long if a time limit ended its process or
// machine, and the test had printed nothing.
func TestBrokenOff(t *testing.T) {
	const goPanic = "output p TestA panic: test timed out after 10m0s\n"
	for _, c := range []struct {
		name, stream, console string
		onlyTime              bool
	}{
		{"go's own limit", "run p TestA -\n" + goPanic, "booting\n", true},
		{"the machine's limit", "run p TestA -\noutput p TestA vm.sh: error: kernel 7.3 did not end within 600 seconds\n", "", true},
		{"a panic", "run p TestA -\noutput p TestA panic: nil map\n", "", false},
		{"the machine panicked", "run p TestA -\noutput p TestA vm.sh: error: kernel 7.3 panicked\n", "", false},
		{"the machine is gone", "run p TestA -\noutput p TestA vm.sh: error: kernel 7.3 ended without an exit status\n", "", false},
		{"no reason", "run p TestA -\n", "", false},
		{"a hung machine whose kernel complains", "run p TestA -\noutput p TestA vm.sh: error: kernel 7.3 did not end within 600 seconds\n", "BUG: soft lockup\n", false},
		{"a limit, but also a crash", "run p TestA -\n" + goPanic + "output p TestA fatal error: x\n", "", false},
		{"a limit, after an error that may be one", "run p TestA -\noutput p TestA     a_test.go:1: wrong data\n" + goPanic, "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			console := write(t, c.console)
			f := events(t, c.stream)
			f.finish(f.death.isOnlyTime(console))
			if len(f.results) != 1 || f.results[0].onlyTime() != c.onlyTime || !f.results[0].failed() {
				t.Errorf("results are %+v, want only time: %v", f.results, c.onlyTime)
			}
		})
	}
}
