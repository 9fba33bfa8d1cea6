package main

import (
	"regexp"
	"strings"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// verdict tells a failed test that only timed out in waiting from a test that found
// something wrong. Go's events do not say which lines of a test are errors. Therefore
// every line that a test prints after its time-out counts as an error, except a line of
// ublktest.Detail. In a test that never ended, every line counts as an error.
type verdict struct {
	lines    int // lines that the test printed
	waited   bool
	after    int  // lines after the message of the time-out
	raced    bool // the race detector reported something
	open     bool // the test did not end
	openTime bool // a time limit ended it
}

// framed matches a line that the test framework printed for a log or an error.
var framed = regexp.MustCompile(`^\s*[\w.-]+\.go:\d+: (.*)`)

func (v *verdict) timedOut() {
	v.waited = true
	v.after = 0
}

func (v *verdict) brokeOff(onlyTime bool) {
	v.open = true
	v.openTime = onlyTime
}

func (v *verdict) output(line string) {
	if strings.Contains(line, "WARNING: DATA RACE") {
		v.raced = true
	}
	m := framed.FindStringSubmatch(line)
	if m == nil || strings.HasPrefix(m[1], ublktest.DetailPrefix) {
		return
	}
	v.lines++
	if v.waited && !strings.HasPrefix(m[1], ublktest.TimedOutPrefix) {
		v.after++
	}
}

// isOnlyTime reports whether this failed test may be tried again.
func (v *verdict) isOnlyTime() bool {
	switch {
	case v.raced:
		return false
	case v.open:
		return v.openTime && v.lines == 0
	}
	return v.waited && v.after == 0
}

// isWorse reports whether a test with failed subtests may have failed for a reason of its
// own, before, between or after them.
func (v *verdict) isWorse() bool { return v.raced || v.lines > 0 }
