package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// key names a test, or a whole package if name is empty.
type key struct{ pkg, name string }

func (k key) String() string { return testName(k.pkg, k.name) }

// test is a test that runs or has ended.
type test struct {
	how      string // the outcome; empty while the test runs
	output   strings.Builder
	subtests int
	failed   int // how many subtests have failed
	started  time.Time
	seconds  float64
	attrs    map[string][]string
	verdict  verdict
}

// stream follows the events of one process. It prints a line for each test that ends, and
// the output of each test that fails, and passes the results to ended.
//
// It counts the tests that have no subtests of their own: a conformance map counts once
// for each of its modes.
type stream struct {
	out     io.Writer
	bed     string              // the bed's name, for each line
	pkgDir  func(string) string // turns the import path of a package into its directory
	quiet   bool                // print only failures
	ended   func(result)        // receives the result of each test that is not a subtest
	tests   map[key]*test
	bad     map[string]bool // packages with a failed test that has started again since
	order   []key
	results int
	text    strings.Builder // output that belongs to no test
	death   death
}

func newStream(out io.Writer, bed string, ended func(result)) *stream {
	return &stream{out: out, bed: bed, pkgDir: func(s string) string { return s }, ended: ended, tests: map[key]*test{}, bad: map[string]bool{}}
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
		s.startAgain(k)
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

// test returns a test. A new test counts as a subtest of its parent.
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

// startAgain forgets a test that has ended, and its subtests. Its process repeats it.
func (s *stream) startAgain(k key) {
	if t := s.tests[k]; t == nil || t.how == "" || s.parent(k) != nil {
		return
	}
	if s.tests[k].how == failed {
		s.bad[k.pkg] = true
	}
	isOld := func(other key) bool { return other.pkg == k.pkg && other.name != "" && root(other.name) == k.name }
	s.order = slices.DeleteFunc(s.order, isOld)
	maps.DeleteFunc(s.tests, func(other key, _ *test) bool { return isOld(other) })
}

// parent returns the test that k is a subtest of, or nil. The last part of k's name may
// contain slashes.
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

// handOn makes one result of a test and its leaves. A test whose outcome only follows
// from its subtests is not a leaf.
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

// leaf returns the test as a leaf, if it is one. A test whose subtests have failed is a
// leaf only if it may have failed for another reason too.
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

// endPackage records a failure outside of the tests: a failed build, a panic, or a
// failure at the end of TestMain. If a test has failed too, only a panic and the like
// count: that test may be tried again, which must not forgive them.
func (s *stream) endPackage(k key) {
	if s.test(k).how != failed || s.failedIn(k.pkg) && !hasCrash(s.test(k).output.String()) {
		return
	}
	s.failPackage(k)
}

// failPackageWith fails a package for a reason that its output does not have.
func (s *stream) failPackageWith(k key, reason string) {
	s.test(k).output.WriteString(strings.TrimSpace(reason) + "\n")
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
	return s.bad[pkg]
}

// finish fails the tests that had not ended when the stream ended, subtests before their
// parents. onlyTime says that a time limit ended the stream.
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

// reason returns the output of a skipped test without the lines of the test framework.
func reason(output string) string {
	var said strings.Builder
	for line := range strings.Lines(output) {
		if !strings.HasPrefix(line, "===") && !strings.HasPrefix(strings.TrimSpace(line), "---") {
			said.WriteString(line)
		}
	}
	return said.String()
}
