package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// tier is a set of tests, and the way to run them.
type tier struct {
	name    string
	tests   func(name string) bool          // which tests of a package
	prepare func(ctx context.Context) error // runs before the first launch
	launch  launcher
	lenient bool          // a test may fail without a fault, and is then left out
	least   time.Duration // the smallest time limit of a test
	work    string        // directory for binaries and temporary files
	results *results

	lock  sync.Mutex // held while a test is measured again
	clean map[*pkg]string
}

// launcher runs a test binary. The error is errTimeOut if the binary does not end in
// time, errCaught or an *exec.ExitError if the test fails, and another error if the test
// could not be started.
type launcher func(ctx context.Context, e *execution) ([]byte, error)

// execution is one run of one test.
type execution struct {
	pkg     *pkg
	binary  string
	scratch string // an empty directory for temporary files
	profile string // the file for the coverage profile, or empty
	limit   time.Duration
	flags   []string
}

// test is one test of a package, and the code that it executes.
type test struct {
	Name   string
	Took   time.Duration
	Blocks []block
}

// The time limit of a test with a fault is limitFactor times its time without the fault,
// and at least leastLimit, because the machine does other work at the same time.
const (
	limitFactor = 5
	leastLimit  = 10 * time.Second
	coverLimit  = 10 * time.Minute // the time limit of a test that has not been measured yet
)

// needsKernel matches the names of the tests that need ublk.
var needsKernel = regexp.MustCompile(`^Test(Kernel|Crash)`)

// newTiers returns the tiers with the given names.
func newTiers(names, work string, results *results) ([]*tier, error) {
	var tiers []*tier
	for name := range strings.SplitSeq(names, ",") {
		t := &tier{name: name, prepare: func(context.Context) error { return nil }, least: leastLimit, work: work, results: results, clean: map[*pkg]string{}}
		switch name {
		case "unit":
			t.tests, t.launch = func(name string) bool { return !needsKernel.MatchString(name) }, launchConfined
		case "uml":
			// The user-mode kernel lacks features that some tests need.
			t.tests, t.prepare, t.launch, t.lenient = needsKernel.MatchString, buildKernel, launchInGuest, true
		default:
			return nil, fmt.Errorf("tier %q: neither unit nor uml", name)
		}
		tiers = append(tiers, t)
	}
	return tiers, nil
}

// cover returns the tests of a package with the code that each executes.
func (t *tier) cover(ctx context.Context, p *pkg) ([]*test, error) {
	path := t.results.path(p, t, "cover.json")
	var tests []*test
	if src, err := os.ReadFile(path); err == nil && json.Unmarshal(src, &tests) == nil {
		return tests, nil
	}
	dir, err := os.MkdirTemp(t.work, "cover")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	binary := filepath.Join(dir, "test")
	if err := build(ctx, p, binary, "-cover"); err != nil {
		return nil, err
	}
	names, err := t.list(ctx, binary)
	if err != nil {
		return nil, err
	}
	if tests, err = t.coverAll(ctx, p, binary, names); err != nil {
		return nil, err
	}
	src, err := json.Marshal(tests)
	if err != nil {
		return nil, err
	}
	return tests, t.results.write(path, src)
}

// list returns the names of the tests in a binary that belong to this tier.
func (t *tier) list(ctx context.Context, binary string) ([]string, error) {
	if _, err := os.Stat(binary); errors.Is(err, os.ErrNotExist) {
		return nil, nil // the package has no tests
	}
	cmd := exec.CommandContext(ctx, binary, "-test.list", "^(Test|Fuzz|Example)")
	cmd.Env = append(os.Environ(), "GOCOVERDIR="+t.work)
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("list tests: %w", err)
	}
	return slices.DeleteFunc(strings.Fields(string(out)), func(name string) bool { return !t.tests(name) }), nil
}

// coverAll measures the coverage of each test separately.
func (t *tier) coverAll(ctx context.Context, p *pkg, binary string, names []string) ([]*test, error) {
	if len(names) == 0 {
		return nil, nil
	}
	if err := t.prepare(ctx); err != nil {
		return nil, err
	}
	fmt.Printf("mutants: coverage of %s by %d tests of tier %s\n", p.dir, len(names), t.name)
	var tests []*test
	told := time.Now()
	for i, name := range names {
		covered, err := t.coverOne(ctx, p, binary, name)
		if err != nil {
			return nil, err
		}
		if covered != nil {
			tests = append(tests, covered)
		}
		if time.Since(told) >= progressEvery {
			fmt.Printf("mutants: coverage of %s: %d of %d tests\n", p.dir, i+1, len(names))
			told = time.Now()
		}
	}
	return tests, nil
}

// coverOne runs a test without a fault, and returns the code that it executes. It returns
// nil if the test fails and the tier allows that.
func (t *tier) coverOne(ctx context.Context, p *pkg, binary, name string) (*test, error) {
	profile, started := binary+".profile", time.Now()
	out, err := t.execute(ctx, &execution{pkg: p, binary: binary, profile: profile, limit: coverLimit, flags: only(name)})
	if err != nil && t.lenient && ctx.Err() == nil {
		fmt.Printf("mutants: %s fails in tier %s without a fault, and is left out: %s\n", name, t.name, howCaught(out, err))
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%s fails without a fault: %w\n%s", name, err, out)
	}
	took := time.Since(started)
	in, err := os.Open(profile)
	if err != nil {
		return nil, err
	}
	defer func() { _ = in.Close() }()
	blocks, err := readProfile(in, p)
	return &test{Name: name, Took: took, Blocks: blocks}, err
}

func only(name string) []string { return []string{"-test.run=^" + name + "$"} }

// execute launches a test with an empty scratch directory.
func (t *tier) execute(ctx context.Context, e *execution) ([]byte, error) {
	dir, err := os.MkdirTemp(t.work, "tmp")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	e.scratch = dir
	return t.launch(ctx, e)
}
