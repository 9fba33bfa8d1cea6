package vmtest

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// bash runs a script after the functions of vm-uml.sh, in which dir has the directories of CPUs 2, 4 and 5. Only these three
// are allowed.
func bash(t *testing.T, dir, script string) string {
	t.Helper()
	const source = `set -eu; . ../vm-uml.sh; cpu_directory=$1; taskset() { echo "pid 1's current affinity list: 2,4-5"; }; `
	out, err := exec.Command("bash", "-c", source+script, "bash", dir).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return string(out)
}

func cpuDirectory(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, cpu := range []string{"cpu2", "cpu4", "cpu5"} {
		if err := os.Mkdir(filepath.Join(dir, cpu), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// Each machine has a CPU that no other one has, while one is free.
func TestCPUOfMachine(t *testing.T) {
	dir := cpuDirectory(t)
	const machines = `for machine in 1 2 3 4; do if own_cpu; then echo "$cpu"; else echo none; fi; done`
	for range 2 { // those of the first shell are free again
		if got, want := strings.Fields(bash(t, dir, machines)), "2 4 5 none"; strings.Join(got, " ") != want {
			t.Errorf("four machines have the CPUs %q, want %q", got, want)
		}
	}
	if got, want := bash(t, filepath.Join(dir, "none"), `own_cpu 2>/dev/null || echo none`), "none\n"; got != want {
		t.Errorf("without directories: %q, want %q", got, want)
	}
}

// A machine runs on the CPU that it has found. If it has found none, it may use all CPUs.
func TestCommandHasCPU(t *testing.T) {
	dir := cpuDirectory(t)
	const machine = `icount='' kernel_name=uml kernel=/kernel work=/work memory=1 append='' disks=() images=(); uml_machine; echo "${machine[*]}"; `
	got := bash(t, dir, machine+machine+`own_cpu; `+machine)
	want := regexp.MustCompile(`^taskset --cpu-list 2 /kernel/linux .*\ntaskset --cpu-list 4 /kernel/linux .*\n/kernel/linux .*\n$`)
	if !want.MatchString(got) {
		t.Errorf("the commands are\n%s", got)
	}
}

// Machines whose instructions are counted have the CPU of earlier figures. In others, no instruction copies memory byte by
// byte.
func TestCopiesOfEmulatedCPU(t *testing.T) {
	for counted, want := range map[string]string{"": "-cpu\nmax,-cx16,-erms\n", "icount": "-cpu\nmax,-cx16\n"} {
		cmd := exec.Command("../vm-accel.sh", "kernel", counted)
		cmd.Env = append(os.Environ(), "UBLK_LOOP_ACCEL=tcg")
		if out, err := cmd.CombinedOutput(); err != nil || !strings.HasSuffix(string(out), want) {
			t.Errorf("counted %q: %v\n%s", counted, err, out)
		}
	}
}
