package main

import (
	"context"
	"os/exec"
	"slices"
	"time"
)

// job is a process that runs tests.
type job struct {
	title    string // "uml loop"
	bed      string // in the results
	pkg      string // of all tests, if the process is a test binary
	pkgDir   func(importPath string) string
	planned  []string // the tests that have to run; nil if that is not known
	expected time.Duration
	// alone: not beside another job of this bed, whose devices it would see.
	alone   bool
	console string // the file that gets the kernel's log
	// command waits for what the job needs, and returns its process.
	command func(ctx context.Context) (*exec.Cmd, error)
	// plain: it prints no events, its exit status is the only result.
	plain bool
	// rest returns the same job for other tests.
	rest   func(tests []string) *job
	second bool // its machine did not come up the first time
}

// missing returns the planned tests that are not among some.
func (j *job) missing(seen map[string]bool) []string {
	return slices.DeleteFunc(slices.Clone(j.planned), func(name string) bool { return seen[name] })
}
