package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// countVariables are the environment variables that set how often tests repeat something.
var countVariables = []string{"UBLK_LOOP_KILLS", "UBLK_LOOP_PRESSURE", "UBLK_LOOP_DEVICES", "UBLK_LOOP_CYCLES", "UBLK_LOOP_SEED", "UBLK_LOOP_PREFIXES"}

// Beds of the tests that need no kernel.
const (
	here  = "here"
	arm64 = "arm64"
)

// builder makes jobs.
type builder struct {
	top      string
	work     string // a directory for this run only
	supplies *supplies
	limit    time.Duration // how long one process may take
	count    int           // how often each test runs
	short    bool          // tests repeat things less often
	tier     tier          // tests without a kernel read it: UBLK_LOOP_TIER
	run      string        // a regular expression that the names of tests match
	subtests string        // the part of --run from the first slash on
	number   int           // the number of jobs made so far
}

// on returns the job that runs tests of one package on a bed.
func (b *builder) on(bed *bed, tests []declared, expected time.Duration) *job {
	k := &kernelJob{builder: b, bed: bed, pkg: tests[0].pkg, needs: needs{}}
	waits := true
	byName := map[string]declared{}
	for _, t := range tests {
		k.tests = append(k.tests, t.name)
		byName[t.name] = t
		waits = waits && t.needs[ublktest.Waits]
		for need := range t.needs {
			k.needs[need] = true
		}
	}
	b.number++
	j := &job{
		title: bed.name + " " + k.pkg.Dir, bed: bed.name, pkg: k.pkg.Dir, planned: k.tests, expected: expected,
		alone: bed.kind == host, waits: waits, console: filepath.Join(b.work, fmt.Sprint("console", b.number)),
	}
	j.command = func(ctx context.Context) (*exec.Cmd, error) { return k.command(ctx, j.console) }
	j.rest = func(names []string) *job {
		var left []declared
		for _, name := range names {
			left = append(left, byName[name])
		}
		return b.on(bed, left, expected)
	}
	return j
}

// here returns the job that runs the tests of a module that need no kernel. It passes
// more to go test as further arguments.
func (b *builder) here(module string, pkgs []*pkg, more ...string) *job {
	race, env := raceArguments()
	env = append(env, "UBLK_LOOP_TIER="+string(b.tier))
	args := append([]string{"test", "-json", "-timeout", seconds(b.limit) + "s", "-skip", b.skip()}, append(race, faster...)...)
	if b.run != "" {
		args = append(args, "-run", b.run)
	}
	// Tests compare modules with the documents. The cache of go test does not look at files outside
	// of a module.
	if b.count > 1 || module != "." {
		args = append(args, fmt.Sprintf("-count=%d", max(b.count, 1)))
	}
	args = append(args, more...)
	args = append(args, relative(module, pkgs)...)
	words := append([]string{"go"}, args...)
	if os.Getuid() != 0 && hasNamespaces() {
		words = inNamespace(words...)
	}
	j := b.goJob(here, module, words, env)
	j.expected = 24 * time.Hour // It starts before all others, because it needs no supply.
	j.slots = 2                 // go test runs several packages at once
	return j
}

// faster are arguments of go test that make tests start sooner. scripts/lint.sh has the analyzers of go vet, and no test
// needs what a debugger reads.
var faster = []string{"-vet=off", "-ldflags=-w"}

// skip returns a regular expression for the tests that a run without a kernel leaves out.
func (b *builder) skip() string {
	switch {
	case b.tier == full || b.run != "":
		return kernelTests
	case b.tier == unit:
		return kernelTests + "|" + longTests + "|" + guestTests
	}
	return kernelTests + "|" + longTests
}

// raceArguments returns what turns the race detector on, if there is a C compiler for it.
func raceArguments() (args, env []string) {
	if _, err := exec.LookPath("gcc"); err != nil {
		return nil, []string{"CGO_ENABLED=0"}
	}
	return []string{"-race"}, []string{"CGO_ENABLED=1", raceSettings}
}

// relative returns the directories of packages, relative to their module.
func relative(module string, pkgs []*pkg) []string {
	var dirs []string
	for _, p := range pkgs {
		dir := strings.TrimPrefix(strings.TrimPrefix(p.Dir, module), "/")
		if module == "." {
			dir = p.Dir
		}
		dirs = append(dirs, "./"+dir)
	}
	return dirs
}

// arm64 returns the job that tests packages with assembly code for arm64 in an emulator.
// It returns nil if there is no emulator or no such package.
func (b *builder) arm64(module string, pkgs []*pkg, more ...string) *job {
	emulator, err := exec.LookPath("qemu-aarch64")
	if err != nil || len(pkgs) == 0 {
		return nil
	}
	args := append([]string{"test", "-json", "-timeout", seconds(b.limit) + "s", "-exec", emulator, "-skip", kernelTests}, faster...)
	if b.run != "" {
		args = append(args, "-run", b.run)
	}
	args = append(append(args, more...), relative(module, pkgs)...)
	return b.goJob(arm64, module, append([]string{"go"}, args...), []string{"GOARCH=arm64", "CGO_ENABLED=0"})
}

// goJob returns a job that runs go, by the words of a command, in a module's directory. The command has to
// print events.
func (b *builder) goJob(bed, module string, words, env []string) *job {
	j := &job{title: bed + " " + module, bed: bed, pkgDir: b.pkgDir(module)}
	j.command = func(ctx context.Context) (*exec.Cmd, error) {
		cmd := exec.CommandContext(ctx, words[0], words[1:]...)
		cmd.Dir, cmd.Env = filepath.Join(b.top, module), append(os.Environ(), env...)
		return cmd, nil
	}
	return j
}

// pkgDir returns a function that turns the import path of a package into its directory.
func (b *builder) pkgDir(module string) func(string) string {
	var prefix string
	return func(importPath string) string {
		if prefix == "" {
			out, _ := b.supplies.run(module, nil, "go", "list", "-m")
			prefix = out
		}
		rest := strings.TrimPrefix(strings.TrimPrefix(importPath, prefix), "/")
		return filepath.Join(module, rest)
	}
}

// fuzz returns the job that runs a fuzz test.
func (b *builder) fuzz(p *pkg, name, time string) *job {
	j := &job{title: "fuzz " + testName(p.Dir, name), bed: "fuzz", pkg: p.Dir, planned: []string{name}, plain: true}
	j.command = func(ctx context.Context) (*exec.Cmd, error) {
		return exec.CommandContext(ctx, filepath.Join(b.top, "scripts/fuzz.sh"), time, "./"+p.Dir, name), nil
	}
	return j
}
