package ublktest

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
)

// Need is a requirement of a kernel test besides the driver and root, or says on which
// kernels the test is worth running. The runner of the tests (scripts/testrun) reads the
// needs before it starts any machine, and uses them for its plan.
type Need string

// The machine must fulfil these needs. Otherwise the test is skipped.
const (
	// Own is a machine for this test alone, because the test unloads the driver, uses up
	// the memory, or changes settings of the system.
	Own Need = "own"
	// CPUs is more than one CPU. User-mode Linux has only one, and never runs threads of
	// a process in parallel.
	CPUs Need = "cpus"
	// Machine is a machine with its devices, real or emulated. User-mode Linux lacks
	// vm.stat_refresh, for example, and hangs without free memory.
	Machine Need = "machine"
	// ScratchDisk is a writable disk of 2 GiB, UBLK_LOOP_DISK.
	ScratchDisk Need = "disk"
	// Engines is the disk with container engines, UBLK_LOOP_ENGINES.
	Engines Need = "engines"
	// Containerd is containerd from one or more Debian suites, in directories below
	// UBLK_LOOP_CONTAINERD.
	Containerd Need = "containerd"
	// Snapshotter is the program ublk-loop-snapshotter, UBLK_LOOP_SNAPSHOTTER.
	Snapshotter Need = "snapshotter"
	// UtilLinux is a directory with util-linux's tests of losetup, UBLK_LOOP_UTIL_LINUX.
	UtilLinux Need = "util-linux"
	// Suites is a disk with test suites of others, UBLK_LOOP_SUITES.
	Suites Need = "suites"
	// Systemd is a systemd that runs in its own namespaces.
	Systemd Need = "systemd"
	// Plain is a build without the race detector, which changes the use of memory and time, and
	// prints warnings of its own.
	Plain Need = "plain"
)

// These needs tell the runner on which kernels and when a test is worth running. They never
// skip a test that was asked for.
const (
	// EveryKernel is for a test whose result depends on the kernel, such as a test of
	// buffer modes, limits, recovery, upgrade, resize, partitions or crashes. Every run
	// has it on each kernel.
	EveryKernel Need = "every-kernel"
	// OldestKernel is for a test whose result depends on the kernel, but less on the ublk driver
	// than on device mapper or file systems, such as a test of tables, or on what all kernels but the
	// newest do alike, such as a test of dirty pages. Every run has it on the oldest kernel,
	// beside its best. The full run has it on each kernel.
	OldestKernel Need = "oldest-kernel"
	// OldestAndNewest is for a test that depends little on the kernel. The full run omits
	// the kernels in between.
	OldestAndNewest Need = "oldest-and-newest"
	// Once is for a test that does not depend on the kernel. It runs on one kernel.
	Once Need = "once"
	// Long is for a test that takes minutes. Only the full run has it.
	Long Need = "long"
	// Soak is for a test that repeats an operation, and can do so for hours.
	Soak Need = "soak"
	// Waits is for a test that spends most of its time waiting for time limits, and needs
	// little of a CPU. The runner has one process with such tests beside the others.
	Waits Need = "waits"
)

// why describes what a machine lacks.
var why = map[Need]string{
	Own:         "a machine of its own",
	CPUs:        "more than one CPU",
	Machine:     "a machine with its devices, real or emulated",
	ScratchDisk: "a disk to write to (UBLK_LOOP_DISK)",
	Engines:     "container engines (UBLK_LOOP_ENGINES)",
	Containerd:  "containerd (UBLK_LOOP_CONTAINERD)",
	Snapshotter: "the program ublk-loop-snapshotter (UBLK_LOOP_SNAPSHOTTER)",
	UtilLinux:   "the tests of util-linux (UBLK_LOOP_UTIL_LINUX)",
	Suites:      "test suites of others (UBLK_LOOP_SUITES)",
	Systemd:     "a systemd that can be started",
	Plain:       "code without the race detector",
}

// IsEquipment reports whether a machine that lacks the need skips the test.
func (n Need) IsEquipment() bool { return why[n] != "" }

// These are the keys of attributes that tests emit for the runner.
const (
	// AttrNeeds has the needs of a test, separated by spaces.
	AttrNeeds = "needs"
	// AttrTimedOut has the event that a test has waited for in vain.
	AttrTimedOut = "timed-out"
	// AttrLacks has what this machine lacks, which may be lacking on all machines of the
	// run.
	AttrLacks = "lacks"
)

// The runner communicates with tests through these variables.
const (
	hasVariable     = "UBLK_LOOP_HAS"     // equipment of the machine, separated by commas
	declareVariable = "UBLK_LOOP_DECLARE" // if set, tests only declare their needs
)

// Require declares the needs of a test, and skips the test if one is missing. It is for
// tests that do something before they call Kernel, which includes Require. Only a test of the
// kernel, whose name begins with TestKernel… or TestCrash…, may need equipment: the runner looks for a machine
// that has it. All other tests run once, with the race detector if there is a C compiler.
func Require(t testing.TB, needs ...Need) {
	t.Helper()
	keepDeclared(t, needs)
	words := make([]string, len(needs))
	for i, n := range needs {
		words[i] = string(n)
	}
	t.Attr(AttrNeeds, strings.Join(words, " "))
	if os.Getenv(declareVariable) != "" {
		t.Skip("declared only")
	}
	for _, n := range needs {
		if n.IsEquipment() && !isKernelTest(t) {
			t.Fatalf("no machine is looked for that has %s: the name begins with neither TestKernel nor TestCrash", why[n])
		}
		if n.IsEquipment() && !has(t, n) {
			t.Skipf("needs %s", why[n])
		}
	}
}

// isKernelTest reports whether a test runs on machines that the runner chooses.
func isKernelTest(t testing.TB) bool {
	return strings.HasPrefix(t.Name(), "TestKernel") || strings.HasPrefix(t.Name(), "TestCrash")
}

// declared has the needs of each test of this process that has called Require, by the name of the
// test without that of a subtest.
var declared = struct {
	sync.Mutex
	needs map[string][]Need
}{needs: map[string][]Need{}}

func keepDeclared(t testing.TB, needs []Need) {
	t.Helper()
	declared.Lock()
	defer declared.Unlock()
	name, _, _ := strings.Cut(t.Name(), "/")
	declared.needs[name] = append(declared.needs[name], needs...)
}

// declares reports whether a test, or a test that it is a subtest of, has declared a need.
func declares(t testing.TB, need Need) bool {
	t.Helper()
	declared.Lock()
	defer declared.Unlock()
	name, _, _ := strings.Cut(t.Name(), "/")
	return slices.Contains(declared.needs[name], need)
}

// MachineLacks skips a test because this machine permanently lacks something, such as an
// instruction of its CPU. A full run fails if all its machines skip a test for any other
// reason.
func MachineLacks(t testing.TB, what string) {
	t.Helper()
	t.Attr(AttrLacks, what)
	t.Skipf("this machine lacks %s", what)
}

// Promised reports whether the runner says that this machine fulfils a need.
func Promised(n Need) bool {
	return os.Getenv(declareVariable) == "" && slices.Contains(strings.Split(os.Getenv(hasVariable), ","), string(n))
}

// has reports whether this machine fulfils a need. It asks the runner, or without a
// runner checks the machine itself.
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

// contradiction returns an error if the runner contradicts what this process can see. The
// test would then be skipped or run for a wrong reason.
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
