package main

import (
	"slices"
	"strings"
)

// How a test ended.
const (
	passed  = "pass"
	failed  = "fail"
	skipped = "skip"
)

// leaf is a test without subtests, or one that failed by itself beside them.
type leaf struct {
	Name  string
	How   string
	Lacks string `json:",omitempty"` // of a skipped test: what its machine lacks
	// OnlyTime says of a failed test that it has waited in vain, and that
	// nothing else was wrong.
	OnlyTime bool `json:",omitempty"`
}

// result is what came of a test, with its subtests, on a bed.
type result struct {
	Bed     string
	Pkg     string // directory of the package
	Test    string // "" for the package as a whole
	Seconds float64
	Leaves  []leaf
}

// String is "7.3 loop.TestKernelLimits".
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

// failed reports whether any of it failed.
func (r result) failed() bool { return r.count(failed) > 0 }

// onlyTime reports whether it failed, and only because something took too long.
func (r result) onlyTime() bool {
	return r.failed() && !slices.ContainsFunc(r.Leaves, func(l leaf) bool { return l.How == failed && !l.OnlyTime })
}

// root is the name of a test without its subtests.
func root(name string) string {
	name, _, _ = strings.Cut(name, "/")
	return name
}
