package ublktest

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
)

// Need is what a test of the kernel needs beside the driver and root, or says
// where it is worth running. The runner of the tests (scripts/testrun) reads the
// needs before it starts any machine, and plans with them.
type Need string

// What the machine must have. A test is skipped where it is missing.
const (
	// Own is a machine for this test alone: the test unloads the driver, uses up
	// the memory, or changes settings of the system.
	Own Need = "own"
	// CPUs is more than one CPU. User-mode Linux has one, and never runs threads
	// of one process in parallel.
	CPUs Need = "cpus"
	// Machine is an x86 machine with its devices, real or emulated. User-mode
	// Linux has no vm.stat_refresh, for example, and stands still without memory.
	Machine Need = "machine"
	// ScratchDisk is a disk of 2 GiB to write to, UBLK_LOOP_DISK.
	ScratchDisk Need = "disk"
	// Engines is the disk with container engines, UBLK_LOOP_ENGINES.
	Engines Need = "engines"
	// Containerd is containerd of one or more Debian suites, in directories below
	// UBLK_LOOP_CONTAINERD.
	Containerd Need = "containerd"
	// Snapshotter is the program ublk-loop-snapshotter, UBLK_LOOP_SNAPSHOTTER.
	Snapshotter Need = "snapshotter"
	// Systemd is a systemd that can be started in namespaces of its own.
	Systemd Need = "systemd"
	// Plain is code without the race detector, which changes how much memory and
	// time everything takes.
	Plain Need = "plain"
)

// Where a test is worth running. These never skip a test that was asked for.
const (
	// EveryKernel is for a test whose result depends on the kernel, such as its
	// buffer modes, limits, recovery, upgrade, resize, partitions and crashes:
	// it runs on each kernel in every run.
	EveryKernel Need = "every-kernel"
	// OldestAndNewest is for a test that depends little on the kernel: the full
	// run leaves out the kernels between.
	OldestAndNewest Need = "oldest-and-newest"
	// Once is for a test that does not depend on the kernel: it runs on one.
	Once Need = "once"
	// Long is for a test that takes minutes: only the full run has it.
	Long Need = "long"
	// Soak is for a test that repeats something, and can do so for hours.
	Soak Need = "soak"
)

// why says what is missing on a machine without something.
var why = map[Need]string{
	Own:         "a machine of its own",
	CPUs:        "more than one CPU",
	Machine:     "an x86 machine, real or emulated",
	ScratchDisk: "a disk to write to (UBLK_LOOP_DISK)",
	Engines:     "container engines (UBLK_LOOP_ENGINES)",
	Containerd:  "containerd (UBLK_LOOP_CONTAINERD)",
	Snapshotter: "the program ublk-loop-snapshotter (UBLK_LOOP_SNAPSHOTTER)",
	Systemd:     "a systemd that can be started",
	Plain:       "code without the race detector",
}

// IsEquipment reports whether a test with this need is skipped where the machine
// lacks it.
func (n Need) IsEquipment() bool { return why[n] != "" }

// Keys of the attributes that tests emit for the runner.
const (
	// AttrNeeds has the needs of a test, separated by spaces.
	AttrNeeds = "needs"
	// AttrTimedOut has what a test has waited for in vain.
	AttrTimedOut = "timed-out"
	// AttrLacks has what this machine lacks, and no machine of the run may have.
	AttrLacks = "lacks"
)

// The variables by which the runner speaks to tests.
const (
	hasVariable     = "UBLK_LOOP_HAS"     // what the machine has, separated by commas
	declareVariable = "UBLK_LOOP_DECLARE" // set: tests declare what they need, and run nothing
)

// Require declares what a test needs, and skips it where that is missing. It is
// for tests that do something before they call Kernel, which does the same.
func Require(t testing.TB, needs ...Need) {
	t.Helper()
	words := make([]string, len(needs))
	for i, n := range needs {
		words[i] = string(n)
	}
	t.Attr(AttrNeeds, strings.Join(words, " "))
	if os.Getenv(declareVariable) != "" {
		t.Skip("declared only")
	}
	for _, n := range needs {
		if n.IsEquipment() && !has(t, n) {
			t.Skipf("needs %s", why[n])
		}
	}
}

// MachineLacks skips a test for which this machine lacks something that it has or has
// not for good, such as an instruction of its CPU. Any other skipped test that no
// machine of a full run can run fails that run.
func MachineLacks(t testing.TB, what string) {
	t.Helper()
	t.Attr(AttrLacks, what)
	t.Skipf("this machine lacks %s", what)
}

// Promised reports whether the runner says that this machine has something.
func Promised(n Need) bool {
	return os.Getenv(declareVariable) == "" && slices.Contains(strings.Split(os.Getenv(hasVariable), ","), string(n))
}

// has reports whether this machine has something: what the runner says that it
// has, or without the runner what can be seen.
func has(t testing.TB, n Need) bool {
	t.Helper()
	if _, promised := os.LookupEnv(hasVariable); !promised {
		return n == CPUs && runtime.NumCPU() > 1 || n == Plain && !hasRaceDetector()
	}
	is := Promised(n)
	if err := contradiction(n, is); err != nil {
		t.Fatal(err)
	}
	return is
}

// contradiction returns an error if the runner says something else than what can
// be seen: a test would be skipped, or run, for a wrong reason.
func contradiction(n Need, is bool) error {
	switch {
	case n == CPUs && is != (runtime.NumCPU() > 1):
		return fmt.Errorf("%s has cpus: %v, but there are %d CPUs", hasVariable, is, runtime.NumCPU())
	case n == Plain && is == hasRaceDetector():
		return fmt.Errorf("%s has plain: %v, but the race detector is on: %v", hasVariable, is, hasRaceDetector())
	}
	return nil
}

// hasRaceDetector reports whether this program was built with -race.
func hasRaceDetector() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}
