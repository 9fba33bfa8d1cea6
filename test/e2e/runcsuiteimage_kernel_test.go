package e2e

import (
	"slices"
	"testing"
)

// imageFiles has the files of runc's integration tests that run with roots from images: those
// that use the container's root directory most. The others test cgroups, namespaces, states and the command line.
var imageFiles = []string{"create", "cwd", "dev", "host-mntns", "mask", "no_pivot", "run", "start_hello", "umask", "userns"}

// failsOnlyFromImage has the tests that runc alone passes, and that fail with the root from an image, with
// the reason.
var failsOnlyFromImage = map[string]string{
	"runc run with tmpfs perms": "looks in the bundle for a directory that runc has made, which is in the image",
}

// TestKernelRuncSuiteFromImage runs files of runc's own integration tests with the root of each container in
// an image of its own. The results are those of runc alone, but for failsOnlyFromImage.
func TestKernelRuncSuiteFromImage(t *testing.T) {
	dir, names := suiteFiles(t, "runc", "tests/integration/*.bats", runcSuiteFiles)
	for _, name := range imageFiles {
		if !slices.Contains(names, name) || leftOut[name] != "" {
			t.Errorf("no file %s runs", name)
			continue
		}
		t.Run(name, func(t *testing.T) {
			w := kernelBed(t).wrap(dir + "/bin/runc")
			w.cgroupWithFreezer()
			alone := parseBats(w.bats(dir, name, w.real))
			out := w.bats(dir, name, w.fromImage())
			w.sameFromImage(alone, parseBats(out))
			if w.Failed() {
				w.Log(out)
			}
			w.forgetAll()
			w.nothingLeft()
		})
	}
}

// sameFromImage compares the results of a file from images with those of runc alone.
func (w *wrapped) sameFromImage(alone, from batsResults) {
	w.Helper()
	var passed, failed []string // that are to be expected
	failed = append(failed, alone.failed...)
	for _, name := range alone.passed {
		if failsOnlyFromImage[name] == "" {
			passed = append(passed, name)
		} else {
			failed = append(failed, name)
		}
	}
	slices.Sort(failed)
	slices.Sort(from.failed)
	if !slices.Equal(from.passed, passed) || !slices.Equal(from.failed, failed) || !slices.Equal(from.skipped, alone.skipped) || len(passed) == 0 {
		w.Errorf("%q pass from an image, and %q are expected; %q fail, and %q are expected", from.passed, passed, from.failed, failed)
	}
}
