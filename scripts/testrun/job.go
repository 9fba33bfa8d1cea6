package main

import (
	"context"
	"os/exec"
	"slices"
	"time"
)

// job is a process that runs tests.
type job struct {
	title    string // for example "uml loop"
	bed      string // the bed's name in the results
	pkg      string // the package of all tests, if the process is a test binary
	pkgDir   func(importPath string) string
	planned  []string // the tests that have to run; nil if they are unknown
	expected time.Duration
	// whole means that it has all tests of its kind, and no list of them. A later run that
	// resumes this one leaves it out if it has succeeded.
	whole bool
	// alone means that no other job of this bed may run at the same time, because the
	// tests would see its devices.
	alone bool
	slots int // how many slots it takes, if more than one
	// waits means that its tests need little of a CPU, so that it needs no slot.
	waits   bool
	console string // the file for the kernel's log
	// command waits for the supplies that the job needs, and returns its process.
	command func(ctx context.Context) (*exec.Cmd, error)
	// plain means that the process prints no events, and its exit status is the only
	// result.
	plain bool
	// rest returns the same job for other tests.
	rest   func(tests []string) *job
	second bool // it runs again because its machine did not start the first time
}

// directory returns the directory of a package, by its name in the job's events.
func (j *job) directory(name string) string {
	if j.pkgDir == nil {
		return name
	}
	return j.pkgDir(name)
}

// missing returns the planned tests that are not in seen.
func (j *job) missing(seen map[string]bool) []string {
	return slices.DeleteFunc(slices.Clone(j.planned), func(name string) bool { return seen[name] })
}
