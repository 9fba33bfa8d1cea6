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

// tier is a set of tests and a place to run them in.
type tier struct {
	name    string
	tests   func(name string) bool          // which of a package's tests
	prepare func(ctx context.Context) error // before the first launch
	launch  launcher
	lenient bool          // whether a test may fail without a fault, and then counts for nothing
	least   time.Duration // what a test may take at least
	work    string        // directory for binaries and temporary files
	results *results

	lock  sync.Mutex // held while a test is measured again
	clean map[*pkg]string
}

// launcher runs a test binary. Its error is errTimeOut if that does not end in time, an errCaught or an *exec.ExitError if
// the test fails, and any other if the test could not be started.
type launcher func(ctx context.Context, e *execution) ([]byte, error)

// execution is one run of one test.
type execution struct {
	pkg     *pkg
	binary  string
	scratch string // an empty directory for its temporary files
	profile string // where the coverage profile goes; empty for none
	limit   time.Duration
	flags   []string
}

// test is one test of a package, with what it runs.
type test struct {
	Name   string
	Took   time.Duration
	Blocks []block
}

// What a test may take with a fault is so many times what it takes without, and at least leastLimit, because the machine does
// other work between.
const (
	limitFactor = 5
	leastLimit  = 10 * time.Second
	coverLimit  = 10 * time.Minute // of tests that were not measured yet
)

// needsKernel is what the names of tests begin with that need ublk.
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
			// This kernel lacks what some tests need.
			t.tests, t.prepare, t.launch, t.lenient = needsKernel.MatchString, buildKernel, launchInGuest, true
		default:
			return nil, fmt.Errorf("tier %q: neither unit nor uml", name)
		}
		tiers = append(tiers, t)
	}
	return tiers, nil
}

// cover returns the tests of a package with what each of them runs.
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

// list returns the names of the tests that a binary has for this tier.
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

// coverAll runs each test by itself.
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

// coverOne runs a test without a fault, and returns what it runs; nil if it fails and may.
func (t *tier) coverOne(ctx context.Context, p *pkg, binary, name string) (*test, error) {
	profile, started := binary+".profile", time.Now()
	out, err := t.execute(ctx, &execution{pkg: p, binary: binary, profile: profile, limit: coverLimit, flags: only(name)})
	if err != nil && t.lenient && ctx.Err() == nil {
		fmt.Printf("mutants: %s fails in tier %s without a fault, and counts for nothing: %s\n", name, t.name, howCaught(out, err))
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

// execute launches a test with an empty directory.
func (t *tier) execute(ctx context.Context, e *execution) ([]byte, error) {
	dir, err := os.MkdirTemp(t.work, "tmp")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	e.scratch = dir
	return t.launch(ctx, e)
}
