package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestMain runs confined if the test binary was started as the first process of the
// namespaces.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == confinedCommand {
		os.Exit(confined(os.Args[2:]))
	}
	os.Exit(m.Run())
}

// needsNamespaces skips a test if this user must not create namespaces.
func needsNamespaces(t *testing.T) {
	t.Helper()
	cmd, err := confine(context.Background(), "/", t.TempDir(), []string{"/bin/true"})
	if err != nil {
		t.Fatal(err)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		if os.Geteuid() == 0 {
			t.Fatalf("namespaces: %v: %s", err, out)
		}
		t.Skipf("namespaces: %v: %s", err, out)
	}
}

// faults maps each fault to the test that catches it; the value is empty if none does.
var faults = map[string]string{
	"Clamp boundary: value < 0 -> value <= 0":                  "TestClamp: clamp_test.go:",
	"Clamp removed: value = limit -> ":                         "TestClamp: clamp_test.go:",
	"Clamp error lost: return 0, errNegative -> return 0, nil": "TestClamp: clamp_test.go:",
	"Clamp boundary: value > limit -> value >= limit":          "",
	"Spin removed: turns-- -> ":                                "TestClamp: time-out",
	"elsewhere arithmetic: value - 3 -> value + 3":             "TestAnotherProcess: clamp_test.go:",
	"untested arithmetic: value + 1 -> value - 1":              "",
}

// drawFaults returns the mutants in faults, except those on lines that tests do not
// execute.
func drawFaults(t *testing.T, unit *tier) []*mutant {
	t.Helper()
	p, all := load1(t)
	all = slices.DeleteFunc(all, func(m *mutant) bool { _, ok := faults[fault(m)]; return !ok })
	if len(all) != len(faults) {
		t.Fatalf("%d mutants for %d faults", len(all), len(faults))
	}
	covered, err := keepCovered(t.Context(), all, []*pkg{p}, []*tier{unit})
	if err != nil {
		t.Fatal(err)
	}
	if len(covered) != len(faults)-1 {
		t.Errorf("tests run the lines of %d of %d mutants", len(covered), len(faults))
	}
	return covered
}

// fault returns a mutant's key without the file.
func fault(m *mutant) string { return strings.TrimPrefix(m.key(), "loop/clamp.go ") }

// A run distinguishes what tests catch from what they do not, does not change the tree,
// and continues where it was stopped.
func TestRun(t *testing.T) {
	needsNamespaces(t)
	module(t)
	before := readFile(t, "loop/clamp.go")
	kept := &results{dir: t.TempDir()}
	tiers, err := newTiers("unit", t.TempDir(), kept)
	if err != nil {
		t.Fatal(err)
	}
	unit := tiers[0]
	unit.least = 2 * time.Second
	covered := drawFaults(t, unit)
	report, err := runAll(t.Context(), &options{jobs: 2}, covered, kept)
	if err != nil {
		t.Fatal(err)
	}
	for m, found := range report.results {
		if want := faults[fault(m)]; !strings.HasPrefix(found.How, want) || found.Caught != (want != "") {
			t.Errorf("%s: caught by %q, not %q", fault(m), found.How, want)
		}
	}
	if len(report.results) != len(covered) {
		t.Errorf("%d results of %d mutants", len(report.results), len(covered))
	}
	if after := readFile(t, "loop/clamp.go"); !bytes.Equal(before, after) {
		t.Error("the source has changed")
	}
	broken := &tier{name: "unit", work: filepath.Join(t.TempDir(), "absent")}
	// The second run takes the results from the first and runs no test.
	for _, m := range covered {
		m.covered[0].tier = broken
	}
	again, err := runAll(t.Context(), &options{jobs: 1}, covered, kept)
	if err != nil || len(again.results) != len(covered) {
		t.Errorf("second run: %d of %d results, error %v", len(again.results), len(covered), err)
	}
}

// If tests cannot be built or started, the run ends with an error, and no mutant counts
// as caught.
func TestNothingRuns(t *testing.T) {
	module(t)
	_, all := load1(t)
	for what, broken := range map[string]*tier{
		"no directory": {name: "unit", work: filepath.Join(t.TempDir(), "absent")},
		"no launcher": {name: "unit", work: t.TempDir(), launch: func(context.Context, *execution) ([]byte, error) {
			return nil, exec.ErrNotFound
		}},
	} {
		all[0].covered = []coverage{{broken, []*test{{Name: "TestClamp"}}}}
		report, err := runAll(t.Context(), &options{jobs: 1}, all[:1], &results{dir: t.TempDir()})
		if err == nil || len(report.results) != 0 {
			t.Errorf("%s: %d results, error %v", what, len(report.results), err)
		}
	}
}

// The compiler accepts each mutant that the type checker accepts.
func TestCompiles(t *testing.T) {
	module(t)
	_, all := load1(t)
	for _, m := range all {
		dir := t.TempDir()
		overlay, err := writeOverlay(m, dir)
		if err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command("go", "build", "-overlay", overlay, "./loop").CombinedOutput()
		if builds := err == nil; builds != m.compiles() {
			t.Errorf("%s: compiles: %v; go build: %v\n%s", m.key(), m.compiles(), err, out)
		}
	}
}

// A test that is slow because the machine is busy does not count as caught.
func TestBusyMachine(t *testing.T) {
	module(t)
	_, all := load1(t)
	slow := &tier{name: "unit", work: t.TempDir(), least: time.Millisecond, clean: map[*pkg]string{}}
	slow.launch = func(_ context.Context, e *execution) ([]byte, error) {
		if e.limit < 50*time.Millisecond {
			return nil, errTimeOut
		}
		if e.limit == coverLimit {
			time.Sleep(20 * time.Millisecond) // the time of the test without the fault
		}
		return nil, nil
	}
	found, err := slow.try(t.Context(), all[0], []*test{{Name: "TestClamp", Took: time.Millisecond}})
	if err != nil || found.Caught {
		t.Errorf("result %+v, error %v", found, err)
	}
}

// A confined test cannot write outside its directory, see a process of the machine, or use more memory than its limit.
func TestConfined(t *testing.T) {
	needsNamespaces(t)
	outside, scratch := t.TempDir(), t.TempDir()
	for script, want := range map[string]string{
		"echo x >$TMPDIR/f && cat $TMPDIR/f":                        "x\n",
		"rm -rf " + outside + "/f; echo $?":                         "1\n",
		"echo x >/proc/sys/kernel/hostname || echo refused":         "refused\n",
		"echo x >/etc/mutants || echo refused":                      "refused\n",
		"ls /run; echo x >/run/f && cat /run/f":                     "x\n",
		"ls /dev/*da* /dev/ublk* /dev/kmsg 2>/dev/null; echo x":     "x\n",
		"kill -0 " + strconv.Itoa(os.Getpid()) + " || echo none":    "none\n",
		"echo x >/dev/shm/f && echo x >/dev/null && cat /dev/shm/f": "x\n",
		"ulimit -d": strconv.Itoa(maxData/1024) + "\n",
	} {
		file := filepath.Join(outside, "f")
		if err := os.WriteFile(file, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithTimeout(context.Background(), time.Minute)
		cmd, err := confine(ctx, "/", scratch, []string{"/bin/bash", "-c", script})
		if err != nil {
			t.Fatal(err)
		}
		if out, err := cmd.Output(); err != nil || string(out) != want {
			t.Errorf("%s: %q, %v; not %q", script, out, err, want)
		}
		stop()
		if _, err := os.Stat(file); err != nil {
			t.Errorf("%s: %v", script, err)
		}
	}
}
