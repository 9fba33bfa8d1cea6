// Command testsum turns the events of `go test -json` or `go tool test2json` on its standard input into a line for each
// test as it ends, with the output of those that fail, and writes how many passed, failed and were skipped to a file; in a
// second line of it, how many did of those that need not run again, whose names it writes to another file.
//
// Counted are the tests that have no subtests of their own: a conformance map counts for each of its modes.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path"
	"sort"
	"strings"
	"time"
)

// event is what `go doc test2json` describes.
type event struct {
	Action     string
	Package    string
	ImportPath string // of a build, in place of Package
	Test       string
	Output     string
	Elapsed    float64
}

// key names a test; a package as a whole has no test name.
type key struct{ pkg, name string }

// String is "loop.TestKernelFsync/direct".
func (k key) String() string { return strings.TrimSuffix(path.Base(k.pkg)+"."+k.name, ".") }

type test struct {
	action   string // how it ended; empty while it runs
	output   strings.Builder
	subtests int
	failed   int // subtests that failed
	started  time.Time
}

// summary follows a stream of events.
type summary struct {
	out                     io.Writer
	label                   string
	tests                   map[key]*test
	passed, failed, skipped int
}

func main() {
	label := flag.String("label", "", "printed in each line: the kernel")
	counts := flag.String("counts", "", "file for the counts")
	done := flag.String("done", "", "file for the tests that passed or were skipped, a line each")
	flag.Parse()
	s := &summary{out: os.Stdout, label: *label, tests: map[key]*test{}}
	err := s.read(os.Stdin)
	s.finish()
	names, passed, skipped := s.done()
	if err == nil && *done != "" {
		err = os.WriteFile(*done, []byte(strings.Join(names, "\n")+"\n"), 0o600)
	}
	if err == nil {
		err = os.WriteFile(*counts, fmt.Appendf(nil, "%d %d %d\n%d 0 %d\n", s.passed, s.failed, s.skipped, passed, skipped), 0o600)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "testsum: error:", err)
		os.Exit(1)
	}
}

// read takes each line for an event; a line that is none is printed as it is.
func (s *summary) read(in io.Reader) error {
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadString('\n')
		var e event
		if json.Unmarshal([]byte(line), &e) == nil {
			s.add(e)
		} else if line != "" {
			fmt.Fprint(s.out, line)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (s *summary) add(e event) {
	k := key{e.Package, e.Test}
	switch e.Action {
	case "build-output":
		fmt.Fprint(s.out, e.Output)
	case "output":
		s.test(k).output.WriteString(e.Output)
	case "run":
		s.test(k)
	case "pass", "fail", "skip":
		s.test(k).action = e.Action
		if e.Test == "" {
			s.endPackage(k)
		} else {
			s.endTest(k, e.Elapsed)
		}
	}
}

// test finds a test, and counts a new one with its parent.
func (s *summary) test(k key) *test {
	t := s.tests[k]
	if t == nil {
		t = &test{started: time.Now()}
		s.tests[k] = t
		if p := s.parent(k); p != nil {
			p.subtests++
		}
	}
	return t
}

// parent is the test that k is a subtest of, or nil. A subtest's own name may hold slashes too.
func (s *summary) parent(k key) *test {
	for i := strings.LastIndexByte(k.name, '/'); i > 0; i = strings.LastIndexByte(k.name[:i], '/') {
		if p := s.tests[key{k.pkg, k.name[:i]}]; p != nil {
			return p
		}
	}
	return nil
}

func (s *summary) endTest(k key, seconds float64) {
	t, p := s.test(k), s.parent(k)
	s.count(t)
	if p != nil && t.action == "fail" {
		p.failed++
	}
	line := fmt.Sprintf("%-6s %s (%.2fs)\n", s.label, k, seconds)
	if t.subtests > 0 {
		line = fmt.Sprintf("%-6s %s (%.2fs, %d subtests)\n", s.label, k, seconds, t.subtests)
	}
	switch {
	case t.action == "fail" && (t.failed == 0 || p == nil):
		fmt.Fprintf(s.out, "FAIL  %s%s", line, t.output.String())
	case t.action == "skip":
		fmt.Fprintf(s.out, "skip  %s%s", line, reason(t.output.String()))
	case p == nil:
		fmt.Fprintf(s.out, "ok    %s", line)
	}
}

// count leaves out a test that only repeats the result of its subtests.
func (s *summary) count(t *test) {
	switch {
	case t.action == "fail" && t.failed == 0:
		s.failed++
	case t.subtests > 0:
	case t.action == "pass":
		s.passed++
	case t.action == "skip":
		s.skipped++
	}
}

// endPackage makes a failure of what failed outside of the tests: a build, a panic, a machine that died. The failure of
// no package at all is the stream's own, and counts where nothing in it has failed.
func (s *summary) endPackage(k key) {
	s.failOpen(k.pkg)
	if s.test(k).action != "fail" || s.failedIn(k.pkg) || k.pkg == "" && s.failed > 0 {
		return
	}
	s.failed++
	fmt.Fprintf(s.out, "FAIL  %-6s %s\n%s", s.label, k, s.test(k).output.String())
}

func (s *summary) failedIn(pkg string) bool {
	for k, t := range s.tests {
		if k.pkg == pkg && k.name != "" && t.action == "fail" {
			return true
		}
	}
	return false
}

// done returns the tests, without subtests, that passed or were skipped, and how many that is as they are counted.
func (s *summary) done() (names []string, passed, skipped int) {
	for k, t := range s.tests {
		root, _, _ := strings.Cut(k.name, "/")
		if whole := s.tests[key{k.pkg, root}]; root == "" || whole.action != "pass" && whole.action != "skip" {
			continue
		}
		if k.name == root {
			names = append(names, root)
		}
		if t.subtests == 0 && t.action == "pass" {
			passed++
		}
		if t.subtests == 0 && t.action == "skip" {
			skipped++
		}
	}
	sort.Strings(names)
	return names, passed, skipped
}

// finish ends what a stream that broke off left open.
func (s *summary) finish() {
	for k := range s.tests {
		s.failOpen(k.pkg)
	}
}

// failOpen fails the tests of a package that never ended, subtests before their parents.
func (s *summary) failOpen(pkg string) {
	var open []key
	for k, t := range s.tests {
		if k.pkg == pkg && k.name != "" && t.action == "" {
			open = append(open, k)
		}
	}
	sort.Slice(open, func(i, j int) bool { return len(open[i].name) > len(open[j].name) })
	for _, k := range open {
		t := s.test(k)
		t.action = "fail"
		t.output.WriteString("    did not end\n")
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
