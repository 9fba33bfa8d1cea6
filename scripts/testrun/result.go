package main

import (
	"slices"
	"strings"
)

// Outcomes of a test.
const (
	passed  = "pass"
	failed  = "fail"
	skipped = "skip"
)

// leaf is a test without subtests, or a test that failed for a reason of its own besides
// its subtests.
type leaf struct {
	Name  string
	How   string
	Lacks string `json:",omitempty"` // what the machine lacks, if the test was skipped for that
	// OnlyTime marks a failed test that timed out in waiting and had no other error.
	OnlyTime bool `json:",omitempty"`
}

// result is the outcome of a test and its subtests on a bed.
type result struct {
	Bed     string
	Pkg     string // the directory of the package
	Test    string // "" for the package as a whole
	Seconds float64
	Leaves  []leaf
}

// String returns a name like "7.3 loop.TestKernelLimits".
func (r result) String() string { return r.Bed + " " + testName(r.Pkg, r.Test) }

func (r result) count(how string) int {
	n := 0
	for _, l := range r.Leaves {
		if l.How == how {
			n++
		}
	}
	return n
}

// failed reports whether a leaf failed.
func (r result) failed() bool { return r.count(failed) > 0 }

// onlyTime reports whether the test failed and all its failed leaves only timed out.
func (r result) onlyTime() bool {
	return r.failed() && !slices.ContainsFunc(r.Leaves, func(l leaf) bool { return l.How == failed && !l.OnlyTime })
}

// root returns the name of the test that a subtest belongs to.
func root(name string) string {
	name, _, _ = strings.Cut(name, "/")
	return name
}
