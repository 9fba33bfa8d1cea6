package main

import (
	"regexp"
	"strings"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// verdict tells a failed test that has only waited in vain from one that found
// something wrong. Go's events do not say which lines of a test are errors.
// Therefore every line that a test prints behind its time-out counts as an error,
// and so does, in a test that never ended, every line at all; only a detail of
// ublktest.Detail does not.
type verdict struct {
	lines    int // that the test has printed
	waited   bool
	after    int  // lines behind the time-out, without its own
	raced    bool // the race detector has found something
	subtests bool // one has failed
	behind   int  // lines behind that
	open     bool // the test did not end
	openTime bool // because it took too long
}

// framed is a line of a test's log or error.
var framed = regexp.MustCompile(`^\s*[\w.-]+\.go:\d+: (.*)`)

func (v *verdict) timedOut() {
	v.waited = true
	v.after = 0
}

func (v *verdict) subtestFailed() { v.subtests = true }

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
	if v.subtests {
		v.behind++
	}
}

// isOnlyTime reports whether the test, which failed, may be tried again.
func (v *verdict) isOnlyTime() bool {
	switch {
	case v.raced:
		return false
	case v.open:
		return v.openTime && v.lines == 0
	}
	return v.waited && v.after == 0
}

// isWorse reports whether a test whose subtests have failed may have failed by
// itself, too.
func (v *verdict) isWorse() bool { return v.raced || v.behind > 0 }
