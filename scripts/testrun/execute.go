package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// progressEvery is the time between two lines of progress.
const progressEvery = 20 * time.Second

// run is one run of the program.
type run struct {
	*options
	top     string
	out     io.Writer
	pkgs    []*pkg
	beds    []*bed
	builder *builder
	runner  *runner
	tests   []declared
	plan    plan
}

// execute runs the tests that the options select, and reports whether all passed.
func execute(ctx context.Context, o *options, out io.Writer) (bool, error) {
	top, err := os.Getwd()
	if err != nil {
		return false, err
	}
	work, err := os.MkdirTemp("", "ublk-loop-test.")
	if err != nil {
		return false, err
	}
	defer func() { _ = os.RemoveAll(work) }()
	o.setCounts()
	r := newRun(ctx, o, top, work, out)
	if err := r.find(); err != nil {
		return false, err
	}
	if !o.planOnly {
		if err := r.openLedger(); err != nil {
			return false, err
		}
	}
	r.runner.meanwhile(progressEvery, func() { r.declare(ctx) })
	r.print()
	if o.planOnly || ctx.Err() != nil {
		return !o.planOnly || len(r.runner.ledger.all()) == 0, nil
	}
	r.runner.schedule(ctx, o.jobs, r.jobs(), progressEvery)
	if ctx.Err() != nil {
		return false, firstError(r.runner.ledger.close(), r.runner.times.write())
	}
	if o.count == 1 {
		r.runner.tryAgain(ctx, r.again, progressEvery)
	}
	return r.end()
}

func newRun(ctx context.Context, o *options, top, work string, out io.Writer) *run {
	r := &run{options: o, top: top, out: out}
	supplies := newSupplies(ctx, top, work, out)
	r.builder = &builder{top: top, work: work, supplies: supplies, limit: o.limit, count: o.count, short: o.tier == quick, tier: o.tier, run: o.runText}
	r.builder.subtests = o.subtests()
	r.runner = &runner{
		out: out, ledger: newLedger(), times: readTimes(filepath.Join(o.cache, "tests", "times.json")),
		started: time.Now(), underWay: supplies.underWay, current: map[*job]progress{},
	}
	return r
}

// setCounts sets how often tests repeat something in the soak tier.
func (o *options) setCounts() {
	if o.tier != soak {
		return
	}
	for name, value := range map[string]string{"UBLK_LOOP_KILLS": "100", "UBLK_LOOP_PRESSURE": "300", "UBLK_LOOP_DEVICES": "1000"} {
		if os.Getenv(name) == "" {
			_ = os.Setenv(name, value) // fails only if the name is invalid
		}
	}
}

// find finds the packages and the beds.
func (r *run) find() error {
	all, err := discover(r.top)
	if err != nil {
		return err
	}
	if r.pkgs, err = choose(all, r.packages); err != nil {
		return err
	}
	if r.tier == unit {
		return nil
	}
	if r.isExplicit() {
		for _, name := range r.kernels {
			r.beds = append(r.beds, newBed(name))
		}
		return nil
	}
	if r.beds, err = matrix(r.top); err != nil {
		return fmt.Errorf("list kernels: %w", err)
	}
	if err := r.checkNames(); err != nil {
		return err
	}
	if r.tier == full {
		var beds []*bed
		for _, b := range r.beds {
			if beds = append(beds, b); b.kind == uml {
				beds = append(beds, b.withRace())
			}
		}
		r.beds = beds
	}
	return nil
}

// checkNames returns an error if --kernel names a kernel that the tiers do not have. It would run no
// test.
func (r *run) checkNames() error {
	for _, name := range r.kernels {
		if !slices.ContainsFunc(r.beds, func(b *bed) bool { return name == b.name || name == b.kernel }) {
			return fmt.Errorf("--tier %s: has no kernel %s: leave out --tier to run all that this kernel can run", r.tier, name)
		}
	}
	return nil
}

// isExplicit reports whether each of the named kernels runs every test that it can run.
func (r *run) isExplicit() bool { return len(r.kernels) > 0 && !r.tierGiven }

// openLedger opens the file with the results for --resume. If git cannot name the state
// of the tree, the results are not kept.
func (r *run) openLedger() error {
	key, err := treeKey(r.top)
	if err != nil && r.resume {
		return fmt.Errorf("resume: %w", err)
	}
	if err != nil {
		return nil
	}
	return r.runner.ledger.open(filepath.Join(r.cache, "tests", "results", key+r.settingsKey()+".json"), r.resume)
}

// settingsKey names what a result depends on besides the tree. A test of which only some
// subtests ran is not done.
func (o *options) settingsKey() string {
	key := fmt.Sprintf("-%s-%d", o.tier, o.count)
	for _, name := range countVariables {
		key += "-" + os.Getenv(name)
	}
	if subtests := o.subtests(); subtests != "" {
		key += fmt.Sprintf("-%x", sha256.Sum256([]byte(subtests)))[:17]
	}
	return key
}

// declare asks all tests of the kernel what they need, and makes the plan. Meanwhile it
// fetches the supplies that most runs need.
func (r *run) declare(ctx context.Context) {
	if r.tier == unit {
		return
	}
	s := r.builder.supplies
	if !r.planOnly {
		for _, b := range r.beds {
			if b.kind != host && (len(r.kernels) == 0 || r.isExplicit() || r.isNamed(b)) {
				go func() { _, _ = s.kernel(b.kernel) }() // the jobs that need the kernel report the error
			}
		}
	}
	r.buildAhead()
	for _, p := range r.pkgs {
		if !p.kernel {
			continue
		}
		binary, err := s.tests(p, build{})
		var tests []declared
		if err == nil {
			tests, err = declare(ctx, r.top, p, binary)
		}
		if err != nil && ctx.Err() == nil {
			fmt.Fprintf(r.out, "FAIL  plan   %s\n%v\n", p.Dir, err)
			r.runner.keep(result{Bed: "plan", Pkg: p.Dir, Leaves: []leaf{{How: failed}}})
		}
		for _, t := range tests {
			if r.run == nil || r.run.MatchString(t.name) {
				r.tests = append(r.tests, t)
			}
		}
	}
	r.makePlan()
}

// buildAhead builds all tests of the kernel, as many at once as there are CPUs: each is linked on one CPU. It
// does not wait for them.
func (r *run) buildAhead() {
	free := make(chan struct{}, runtime.NumCPU())
	for _, p := range r.pkgs {
		if p.kernel {
			go func() { // declare waits for its result, and reports the error
				free <- struct{}{}
				_, _ = r.builder.supplies.tests(p, build{})
				<-free
			}()
		}
	}
}

func (r *run) makePlan() {
	p := planner{tier: r.tier, beds: r.beds, explicit: r.isExplicit()}
	r.plan = p.plan(r.tests)
	if len(r.kernels) > 0 && !r.isExplicit() {
		r.plan = r.plan.only(r.kernels)
	}
}

// isNamed reports whether --kernel names the kernel of a bed.
func (r *run) isNamed(b *bed) bool {
	for _, name := range r.kernels {
		if name == b.name || name == b.kernel {
			return true
		}
	}
	return false
}

// print prints the plan.
func (r *run) print() {
	if r.tier == unit {
		return
	}
	for _, b := range r.beds {
		var names []string
		for _, p := range r.plan.placements {
			if p.bed == b {
				names = append(names, p.String())
			}
		}
		fmt.Fprintf(r.out, "-- plan: %d tests on %s\n", len(names), b.name)
		if r.planOnly {
			fmt.Fprintln(r.out, "   "+strings.Join(names, "\n   "))
		}
	}
	if n := len(r.plan.later); n > 0 {
		fmt.Fprintf(r.out, "-- plan: %d tests are left to other tiers\n", n)
	}
}

// end prints the summary of the run.
func (r *run) end() (bool, error) {
	t := sum(r.runner.ledger.all())
	t.nowhere = append(t.nowhere, r.plan.homeless...)
	t.skipped += len(r.plan.homeless)
	if r.isWhole() {
		t.demand()
	}
	err := firstError(r.runner.ledger.close(), r.runner.times.write())
	r.printKernels()
	t.print(r.out, r.runner.unsteady)
	return t.isGood(), err
}
