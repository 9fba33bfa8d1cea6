package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// kernelTests matches the names of the tests that need a kernel.
const kernelTests = "^Test(Kernel|Crash)"

// longTests matches the names of the tests that need no kernel and take about a minute. Only
// a full run has them, and a run that names them.
const longTests = "^TestLong"

// guestTests matches the names of the tests that start a user-mode machine themselves. The tier unit does
// not have them.
const guestTests = "^TestGuest[A-Z]"

// declareLimit is far more time than the tests of a package need to declare their needs.
const declareLimit = time.Minute

// declare runs the tests of a package in the mode in which they only declare what they
// need. A test that declares nothing is an error, and so is a test that does more than
// skip itself.
func declare(ctx context.Context, top string, p *pkg, binary string) ([]declared, error) {
	ctx, stop := context.WithTimeout(ctx, declareLimit)
	defer stop()
	cmd := exec.CommandContext(ctx, binary, "-test.v=test2json", "-test.run", kernelTests)
	cmd.Dir = filepath.Join(top, p.Dir)
	cmd.Env = append(os.Environ(), "UBLK_LOOP_DECLARE=1")
	tests := map[string]needs{}
	var order []string
	var said strings.Builder
	s := newStream(&said, "declare", func(result) {})
	s.quiet = true
	err := follow(ctx, cmd, p.Dir, func(e event) {
		s.add(e)
		name := root(e.Test)
		switch {
		case e.Action == "run" && name == e.Test:
			order = append(order, name)
		case e.Action == "attr" && e.Key == ublktest.AttrNeeds:
			if tests[name] == nil {
				tests[name] = needs{}
			}
			tests[name].parse(e.Value)
		}
	})
	if err != nil {
		s.finish(false)
		return nil, fmt.Errorf("%s: declare what the tests need: %w\n%s%s", p.Dir, err, &said, &s.text)
	}
	return collect(p, order, tests, s)
}

// collect lists the tests with their needs. It returns an error for each test that
// declared nothing or that ran.
func collect(p *pkg, order []string, tests map[string]needs, s *stream) ([]declared, error) {
	var list []declared
	var errs []error
	for _, name := range order {
		n := tests[name]
		if n == nil {
			errs = append(errs, fmt.Errorf("%s does not declare what it needs: it begins with ublktest.Kernel or ublktest.Require", testName(p.Dir, name)))
			continue
		}
		list = append(list, declared{p, name, n})
	}
	for k, t := range s.tests {
		if k.name != "" && t.subtests == 0 && t.how != skipped {
			errs = append(errs, fmt.Errorf("%s runs before it declares what it needs", k))
		}
	}
	slices.SortFunc(errs, func(a, b error) int { return len(a.Error()) - len(b.Error()) })
	return list, errors.Join(errs...)
}
