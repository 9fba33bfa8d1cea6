package main

import (
	"fmt"
	"io"
	"sort"
	"strings"
	"time"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// key names a test; a package as a whole has no test name.
type key struct{ pkg, name string }

func (k key) String() string { return testName(k.pkg, k.name) }

// test is a test under way, or its end.
type test struct {
	how      string // how it ended; empty while it runs
	output   strings.Builder
	subtests int
	failed   int // subtests that failed
	started  time.Time
	seconds  float64
	attrs    map[string][]string
	verdict  verdict
}

// stream follows the events of one process, prints a line for each test as it
// ends, with the output of those that fail, and hands on what came of it.
//
// Counted are the tests that have no subtests of their own: a conformance map
// counts for each of its modes.
type stream struct {
	out     io.Writer
	bed     string              // printed in each line
	pkgDir  func(string) string // the directory of a package, by its import path
	quiet   bool                // prints only what fails
	ended   func(result)        // for each test without its subtests
	tests   map[key]*test
	order   []key
	results int
	text    strings.Builder // what no test has printed
	death   death
}

func newStream(out io.Writer, bed string, ended func(result)) *stream {
	return &stream{out: out, bed: bed, pkgDir: func(s string) string { return s }, ended: ended, tests: map[key]*test{}}
}

func (s *stream) add(e event) {
	k := key{s.pkgDir(e.Package), e.Test}
	switch e.Action {
	case "build-output":
		fmt.Fprint(s.out, e.Output)
	case "output":
		s.output(k, e.Output)
	case "attr":
		t := s.test(k)
		t.attrs[e.Key] = append(t.attrs[e.Key], e.Value)
		if e.Key == ublktest.AttrTimedOut {
			t.verdict.timedOut()
		}
	case "run":
		s.test(k)
	case passed, failed, skipped:
		s.test(k).how = e.Action
		if e.Test == "" {
			s.endPackage(k)
		} else {
			s.endTest(k, e.Elapsed)
		}
	}
}

func (s *stream) output(k key, line string) {
	if k.name == "" {
		s.text.WriteString(line)
	}
	s.death.output(line)
	t := s.test(k)
	t.output.WriteString(line)
	t.verdict.output(line)
}

// test finds a test, and counts a new one with its parent.
func (s *stream) test(k key) *test {
	t := s.tests[k]
	if t == nil {
		t = &test{started: time.Now(), attrs: map[string][]string{}}
		s.tests[k] = t
		s.order = append(s.order, k)
		if p := s.parent(k); p != nil {
			p.subtests++
		}
	}
	return t
}

// parent is the test that k is a subtest of, or nil. A subtest's own name may hold slashes too.
func (s *stream) parent(k key) *test {
	for i := strings.LastIndexByte(k.name, '/'); i > 0; i = strings.LastIndexByte(k.name[:i], '/') {
		if p := s.tests[key{k.pkg, k.name[:i]}]; p != nil {
			return p
		}
	}
	return nil
}

func (s *stream) endTest(k key, seconds float64) {
	t, p := s.test(k), s.parent(k)
	t.seconds = seconds
	if p != nil && t.how == failed {
		p.failed++
		p.verdict.subtestFailed()
	}
	s.print(k, t, p == nil)
	if p == nil {
		s.handOn(k)
	}
}

func (s *stream) print(k key, t *test, isRoot bool) {
	line := fmt.Sprintf("%-6s %s (%.2fs)\n", s.bed, k, t.seconds)
	if t.subtests > 0 {
		line = fmt.Sprintf("%-6s %s (%.2fs, %d subtests)\n", s.bed, k, t.seconds, t.subtests)
	}
	switch {
	case t.how == failed && (t.failed == 0 || isRoot):
		fmt.Fprintf(s.out, "FAIL  %s%s", line, t.output.String())
	case s.quiet:
	case t.how == skipped:
		fmt.Fprintf(s.out, "skip  %s%s", line, reason(t.output.String()))
	case isRoot:
		fmt.Fprintf(s.out, "ok    %s", line)
	}
}

// handOn makes the result of a test of its leaves. A test that only repeats the
// result of its subtests is none.
func (s *stream) handOn(k key) {
	r := result{Bed: s.bed, Pkg: k.pkg, Test: k.name, Seconds: s.tests[k].seconds}
	for _, other := range s.order {
		if other.pkg == k.pkg && other.name != "" && root(other.name) == k.name {
			if l, ok := s.tests[other].leaf(other.name); ok {
				r.Leaves = append(r.Leaves, l)
			}
		}
	}
	s.results++
	s.ended(r)
}

// leaf returns what a test counts for. One whose subtests have failed counts
// beside them only if it may have found something else.
func (t *test) leaf(name string) (leaf, bool) {
	l := leaf{Name: name, How: t.how}
	switch {
	case t.how == failed && t.failed > 0:
		return l, t.verdict.isWorse()
	case t.how == failed:
		l.OnlyTime = t.verdict.isOnlyTime()
	case t.subtests > 0:
		return l, false
	case t.how == skipped:
		l.Lacks = strings.Join(t.attrs[ublktest.AttrLacks], ", ")
	}
	return l, t.how != ""
}

// endPackage makes a failure of what failed outside of the tests: a build, a
// panic, the end of TestMain.
func (s *stream) endPackage(k key) {
	if s.test(k).how != failed || s.failedIn(k.pkg) {
		return
	}
	s.failPackage(k)
}

func (s *stream) failPackage(k key) {
	fmt.Fprintf(s.out, "FAIL  %-6s %s\n%s", s.bed, k, s.test(k).output.String())
	s.results++
	s.ended(result{Bed: s.bed, Pkg: k.pkg, Leaves: []leaf{{How: failed}}})
}

// failedIn reports whether a test of a package has failed or has not ended.
func (s *stream) failedIn(pkg string) bool {
	for k, t := range s.tests {
		if k.pkg == pkg && k.name != "" && (t.how == failed || t.how == "") {
			return true
		}
	}
	return false
}

// finish fails what a stream that broke off left open, subtests before their
// parents. onlyTime says that it broke off because it took too long.
func (s *stream) finish(onlyTime bool) {
	var open []key
	for _, k := range s.order {
		if k.name != "" && s.tests[k].how == "" {
			open = append(open, k)
		}
	}
	sort.SliceStable(open, func(i, j int) bool { return len(open[i].name) > len(open[j].name) })
	for _, k := range open {
		t := s.test(k)
		t.how = failed
		t.output.WriteString("    did not end\n")
		t.verdict.brokeOff(onlyTime)
		s.endTest(k, time.Since(t.started).Seconds())
	}
}

// reason is what a skipped test said, without the lines that the test framework put around it.
func reason(output string) string {
	var said strings.Builder
	for line := range strings.Lines(output) {
		if !strings.HasPrefix(line, "===") && !strings.HasPrefix(strings.TrimSpace(line), "---") {
			said.WriteString(line)
		}
	}
	return said.String()
}
