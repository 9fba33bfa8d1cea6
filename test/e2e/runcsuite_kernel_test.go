package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/ptytest"
)

// runcSuiteFiles is the number of files in runc's integration tests.
const runcSuiteFiles = 53

// leftOut has the files of runc's integration tests that do not run here, with the reason.
var leftOut = map[string]string{
	"cgroup_delegation":         "needs systemd or a user who is not root",
	"checkpoint":                "needs criu",
	"cpu_affinity":              "needs more than one CPU",
	"hooks_so":                  "needs an image of a Debian",
	"idmap":                     "needs an image of a Debian",
	"ioprio":                    "needs an image of a Debian",
	"mounts_propagation":        "needs an image of a Debian",
	"mounts_propagation_unsafe": "needs an image of a Debian",
	"mounts_recursive":          "needs an image of a Debian",
	"mounts_sshfs":              "needs sshfs",
	"netdev":                    "needs the driver dummy",
	"scheduler":                 "needs an image of a Debian",
	"seccomp":                   "needs libseccomp",
	"seccomp-notify":            "needs libseccomp",
	"seccomp-notify-compat":     "needs libseccomp",
	"selinux":                   "needs SELinux",
}

// failsAlone has the tests that fail with runc alone as well, with the reason.
var failsAlone = map[string]string{
	"update memory vs CheckBeforeUpdate":                   "needs /etc/os-release",
	"userns with network interface":                        "needs the driver dummy",
	"userns with network interface renamed":                "needs the driver dummy",
	"runc command -h":                                      "expects the name of the program in the help",
	"spec validator":                                       "needs the network",
	"runc run [redundant seccomp rules]":                   "needs libseccomp",
	"runc run [device cgroup allow rw char device]":        "needs a C compiler",
	"runc run memory policy interleave without flags":      "needs a kernel with NUMA",
	"runc run memory policy bind static":                   "needs a kernel with NUMA",
	"runc run and exec memory policy prefer relative":      "needs a kernel with NUMA",
	"runc run memory policy default with missing nodes":    "needs a kernel with NUMA",
	"runc run personality for i686":                        "needs an x86 machine",
	"runc run personality with exec for i686":              "needs an x86 machine",
	"runc run with personality syscall blocked by seccomp": "needs libseccomp",
	"ps":       "needs the ps of procps",
	"ps -e -x": "needs the ps of procps",
}

// bats runs a file of runc's integration tests with a runtime, and returns the output. The
// tests need a terminal.
func (w *wrapped) bats(dir, file, runtime string) string {
	w.Helper()
	ctx, stop := context.WithTimeout(context.Background(), 4*time.Minute)
	defer stop()
	_, terminal := ptytest.New(w)
	temporary := w.TempDir()
	// Root of a user namespace must be able to pass the parents of a bundle.
	if err := os.Chmod(filepath.Dir(temporary), 0o755); err != nil {
		w.Fatal(err)
	}
	cmd := inMountNamespace(ctx, dir+"/bats/usr/bin/bats", "--tap", dir+"/tests/integration/"+file+".bats")
	cmd.Env = append(os.Environ(), "RUNC="+runtime, "PATH="+dir+"/bin:"+os.Getenv("PATH"), "TMPDIR="+temporary)
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true, Setctty: true}
	var out bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = terminal, &out, &out
	cmd.WaitDelay = time.Second // a helper of a test may keep the output open
	_ = cmd.Run()               // the results say what has failed
	if ctx.Err() != nil {
		w.Errorf("%s does not end:\n%s", file, &out)
	}
	return out.String()
}

// batsLine matches a result in the output of bats. The groups are the result, the name of the
// test, and the reason for which it was skipped.
var batsLine = regexp.MustCompile(`(?m)^(ok|not ok) [0-9]+ (.*?)( # skip.*)?$`)

// batsPlan matches the number of tests in a file.
var batsPlan = regexp.MustCompile(`(?m)^1\.\.([0-9]+)$`)

// batsResults are the results of a file of tests, by the names of the tests.
type batsResults struct{ passed, skipped, failed []string }

func parseBats(out string) (r batsResults) {
	for _, m := range batsLine.FindAllStringSubmatch(out, -1) {
		list := &r.passed
		switch {
		case m[1] == "not ok":
			list = &r.failed
		case m[3] != "":
			list = &r.skipped
		}
		*list = append(*list, m[2])
	}
	return r
}

// passes runs a file of tests through the wrapper. What fails must fail alone as well.
func (w *wrapped) passes(dir, file string) {
	w.Helper()
	out := w.bats(dir, file, w.wrapper)
	r := parseBats(out)
	for _, name := range r.failed {
		if failsAlone[name] == "" {
			w.Errorf("%s fails", name)
		}
	}
	if plan := batsPlan.FindStringSubmatch(out); plan == nil || fmt.Sprint(len(r.passed)+len(r.skipped)+len(r.failed)) != plan[1] || len(r.passed) == 0 {
		w.Errorf("%d tests pass, %d are skipped, %d fail", len(r.passed), len(r.skipped), len(r.failed))
	}
	if len(r.failed) > 0 && !w.Failed() {
		// A test depends on the name by which the runtime is called.
		sameName := filepath.Join(w.TempDir(), filepath.Base(w.wrapper))
		w.write(sameName, fmt.Sprintf("#!/bin/sh\nexec %s \"$@\"\n", w.real), 0o755)
		if alone := parseBats(w.bats(dir, file, sameName)); !slices.Equal(alone.failed, r.failed) {
			w.Errorf("%q fail, and %q alone", r.failed, alone.failed)
		}
	}
	if w.Failed() {
		w.Log(out)
	}
}

// Through the wrapper, runc passes its own integration tests.
func TestKernelRuncSuite(t *testing.T) {
	dir, names := suiteFiles(t, "runc", "tests/integration/*.bats", runcSuiteFiles)
	for name := range leftOut {
		if !slices.Contains(names, name) {
			t.Errorf("there is no file %s", name)
		}
	}
	for _, name := range names {
		if leftOut[name] != "" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			w := kernelBed(t).wrap(dir + "/bin/runc")
			w.tool("modprobe", "loop") // for tests of I/O limits
			w.cgroupWithFreezer()
			w.passes(dir, name)
			w.forgetAll()
			w.nothingLeft()
		})
	}
}

// cgroupWithFreezer makes a cgroup, in which the tests look for the kernel's freezer.
func (w *wrapped) cgroupWithFreezer() {
	w.Helper()
	const path = "/sys/fs/cgroup/with-freezer"
	if err := os.Mkdir(path, 0o755); err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() {
		if err := os.Remove(path); err != nil {
			w.Error(err)
		}
	})
}
