package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// totals is the summary in the last lines of a run.
type totals struct {
	passed, failed, skipped int
	nowhere                 []string // other tests that were skipped on every bed
	lacks                   []string // tests whose machine permanently lacks something
	failures                []string
}

// sum adds up the results. A skipped test counts as skipped only if it ran on no bed.
func sum(results []result) totals {
	var t totals
	ran := map[string]bool{} // the names of the tests that ran, and of their parents
	for _, r := range results {
		t.passed += r.count(passed)
		t.failed += r.count(failed)
		if r.failed() {
			t.failures = append(t.failures, r.String())
		}
		for _, l := range r.Leaves {
			if l.How == skipped {
				continue
			}
			for name := l.Name; name != ""; name = parentName(name) {
				ran[testName(r.Pkg, name)] = true
			}
		}
	}
	counted := map[string]bool{}
	for _, r := range results {
		for _, l := range r.Leaves {
			name := testName(r.Pkg, l.Name)
			if l.How != skipped || ran[name] || counted[name] {
				continue
			}
			counted[name] = true
			t.skipped++
			if l.Lacks != "" {
				t.lacks = append(t.lacks, name+": "+l.Lacks)
			} else {
				t.nowhere = append(t.nowhere, name)
			}
		}
	}
	return t
}

// parentName removes the last part of a subtest's name. It returns "" for a test without
// a parent.
func parentName(name string) string {
	i := strings.LastIndexByte(name, '/')
	return name[:max(i, 0)]
}

// demand turns tests that a full run has run on no bed into failures.
func (t *totals) demand() {
	for _, name := range t.nowhere {
		t.failures = append(t.failures, name+" was skipped wherever it was tried")
	}
	t.failed += len(t.nowhere)
	t.skipped -= len(t.nowhere)
	t.nowhere = nil
}

// print prints the last lines of a run.
func (t *totals) print(out io.Writer, unsteady []string) {
	for _, name := range t.lacks {
		fmt.Fprintf(out, "lacking: %s\n", name)
	}
	for _, name := range t.nowhere {
		fmt.Fprintf(out, "skipped: %s\n", name)
	}
	for _, name := range t.failures {
		fmt.Fprintf(out, "failed: %s\n", name)
	}
	names := "none"
	if len(unsteady) > 0 {
		names = strings.Join(slices.Sorted(slices.Values(unsteady)), ", ")
	}
	fmt.Fprintf(out, "%d unsteady: %s\n", len(unsteady), names)
	fmt.Fprintf(out, "%d passed, %d failed, %d skipped\n", t.passed, t.failed, t.skipped)
}

// isGood reports whether at least one test passed and none failed.
func (t *totals) isGood() bool { return t.passed > 0 && t.failed == 0 }
