// Command mutants puts small faults into the source, one at a time, and lists those that
// no test detects.
//
// It finds every place where it can change an operator, a constant, a condition, a
// returned error or a statement. It keeps the mutants on lines that tests execute, draws
// some of them with a seed, and runs the tests of the package against each. The work tree
// does not change, because the compiler reads a changed file through -overlay. See
// docs/testing.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
)

type options struct {
	number   int    // how many mutants to run
	seed     string // seed of the draw
	jobs     int    // how many mutants to run at once
	goal     int    // percentage of mutants, without equivalent ones, that tests must catch
	packages string // regular expression of the package directories to take mutants from
	tiers    string // names of tiers, fastest first
	only     string // id of the only mutant to run
	list     bool   // print the mutants drawn, and run none
	cache    string // directory of the results
}

func parseOptions() *options {
	o := &options{}
	flag.IntVar(&o.number, "n", 200, "number of mutants")
	flag.StringVar(&o.seed, "seed", "1", "seed of the draw")
	flag.IntVar(&o.jobs, "jobs", runtime.NumCPU(), "mutants to run at once")
	flag.IntVar(&o.goal, "goal", 95, "percentage of the mutants, except equivalent ones, that tests must catch; otherwise the exit status is 1")
	flag.StringVar(&o.packages, "packages", defaultPackages, "regular expression of package directories to take mutants from")
	flag.StringVar(&o.tiers, "tier", "unit,uml", "tiers, fastest first: unit (natively), uml (user-mode Linux)")
	flag.StringVar(&o.only, "mutant", "", "run only the mutant with this `id`, and print the output of the tests")
	flag.BoolVar(&o.list, "list", false, "print the mutants drawn, and run none")
	flag.StringVar(&o.cache, "cache", filepath.Join(cacheDirectory(), "mutants"), "directory for results")
	flag.Parse()
	return o
}

// cacheDirectory returns the directory in which the scripts keep downloads and builds.
func cacheDirectory() string {
	if dir := os.Getenv("UBLK_LOOP_CACHE"); dir != "" {
		return dir
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		dir = os.TempDir()
	}
	return filepath.Join(dir, "ublk-loop")
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == confinedCommand {
		os.Exit(confined(os.Args[2:]))
	}
	o := parseOptions()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "mutants: error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o *options) error {
	work, err := os.MkdirTemp("", "mutants")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(work) }()
	packages, err := load(ctx, o.packages)
	if err != nil {
		return err
	}
	results := &results{dir: o.cache}
	tiers, err := newTiers(o.tiers, work, results)
	if err != nil {
		return err
	}
	chosen, err := choose(ctx, o, packages, tiers)
	if err != nil {
		return err
	}
	if o.list {
		for _, m := range chosen {
			fmt.Print(m.describe())
		}
		return nil
	}
	report, err := runAll(ctx, o, chosen, results)
	report.print(os.Stdout)
	if err != nil {
		return err
	}
	return report.verdict(o.goal)
}

// choose draws the mutants of a run.
func choose(ctx context.Context, o *options, packages []*pkg, tiers []*tier) ([]*mutant, error) {
	equivalent, err := readEquivalents(filepath.Join("scripts", "mutants", "equivalent.txt"))
	if err != nil {
		return nil, err
	}
	var all []*mutant
	for _, p := range packages {
		all = append(all, p.mutants()...)
	}
	if err := equivalent.mark(all, packages); err != nil {
		return nil, err
	}
	if o.only != "" {
		return findOnly(ctx, o.only, all, tiers)
	}
	covered, err := keepCovered(ctx, all, packages, tiers)
	if err != nil {
		return nil, err
	}
	chosen := draw(covered, o.seed, o.number)
	fmt.Printf("mutants: %d places, %d on lines that tests run, %d drawn with seed %s\n", len(all), len(covered), len(chosen), o.seed)
	if len(chosen) == 0 {
		return nil, errors.New("no mutant to run: no test covers these packages")
	}
	return chosen, nil
}

// findOnly returns the mutant with an id.
func findOnly(ctx context.Context, id string, all []*mutant, tiers []*tier) ([]*mutant, error) {
	for _, m := range all {
		if m.id() == id {
			m.verbose = true
			_, err := keepCovered(ctx, []*mutant{m}, []*pkg{m.pkg}, tiers)
			if err == nil && len(m.covered) == 0 {
				err = fmt.Errorf("mutant %s: no test runs %s:%d", id, m.file, m.line)
			}
			return []*mutant{m}, err
		}
	}
	return nil, fmt.Errorf("mutant %s: not found", id)
}
