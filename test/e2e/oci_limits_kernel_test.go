package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// Annotations limit a container's I/O on its device, and leave containers without them
// alone.
func TestKernelOCIIOLimits(t *testing.T) {
	ublktest.Require(t, ublktest.Waits)
	eachRuntime(t, "", func(w *wrapped) {
		image := w.largeImage()
		w.limitsIO(w.bundle(asked{"image": image, "io.rbps": "1m", "io.wbps": "2m", "io.riops": "1000", "io.wiops": "500"}, "sleep", "1000"))
		w.refuses(w.bundle(asked{"image": image, "io.rbps": "0"}, "true"), "io.rbps", "0 would mean no limit")
	})
}

// A bundle with limits can be run again, when the device of its earlier container is gone.
func TestKernelOCIIOLimitsAgain(t *testing.T) {
	ublktest.Require(t, ublktest.Waits)
	eachRuntime(t, "", func(w *wrapped) {
		image := w.largeImage()
		limited := w.bundle(asked{"image": image, "io.rbps": "1m"}, "sleep", "1000")
		run := func(id, bundle string) {
			if r := w.calls("run", "--detach", "--bundle", bundle, id); r.status != 0 {
				w.Fatalf("run %s: %s", id, r.err)
			}
		}
		run("other", w.bundle(asked{"image": image}, "sleep", "1000")) // has the lowest number
		run("first", limited)
		for _, id := range []string{"first", "other"} {
			_ = w.calls("kill", id, "KILL")
		}
		w.nothingLeft()
		run("again", limited)
		if got := w.ioMax(w.pid("again")); strings.Count(got, "\n") != 1 {
			w.Errorf("io.max is %q", got)
		}
		_ = w.calls("kill", "again", "KILL")
		w.nothingLeft()
		w.forgetAll()
	})
}

// The hooks set the same limits.
func TestKernelHookIOLimits(t *testing.T) {
	ublktest.Require(t, ublktest.Waits)
	withRuntimes(t, []string{"crun"}, hooked, byHooks(func(w *wrapped) {
		bundle := w.bundle(asked{"image": w.largeImage(), "io.rbps": "1m", "io.wbps": "2m", "io.riops": "1000", "io.wiops": "500"}, "sleep", "1000")
		w.precreate(bundle)
		w.limitsIO(bundle)
	}))
}

// largeMiB is the size of a file in largeImage that a limit of 1 MiB/s delays.
const largeMiB = 3

func (w *wrapped) largeImage() string {
	w.Helper()
	tree := rootTree(w, "x")
	w.write(filepath.Join(tree, "large"), strings.Repeat("x", largeMiB<<20), 0o644)
	return w.imageOf("ext4", tree)
}

// limitsIO checks that the container of a bundle has all four limits, and reads at most 1 MiB a
// second from its device.
func (w *wrapped) limitsIO(bundle string) {
	w.Helper()
	if r := w.calls("run", "--detach", "--bundle", bundle, "limited"); r.status != 0 {
		w.Fatalf("run: %s", r.err)
	}
	var devices []client.Device
	w.decode(w.server.curl("-f", "http://x/v1/devices"), &devices)
	if len(devices) != 1 {
		w.Fatalf("devices %+v", devices)
	}
	want := devices[0].MajMin + " rbps=1048576 wbps=2097152 riops=1000 wiops=500\n"
	if got := w.ioMax(w.pid("limited")); got != want {
		w.Errorf("io.max is %q, want %q", got, want)
	}
	start := time.Now()
	r := w.calls("exec", "limited", "dd", "if=/large", "of=/dev/null", "iflag=direct", "bs=64K")
	if took := time.Since(start); r.status != 0 || took < (largeMiB-1)*time.Second {
		w.Errorf("%d MiB take %v with 1 MiB/s, status %d: %s", largeMiB, took, r.status, r.err)
	}
	_ = w.calls("kill", "limited", "KILL")
	w.nothingLeft()
	w.forget("limited")
}

// ioMax returns io.max of the cgroup of a process.
func (w *wrapped) ioMax(pid int) string {
	w.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		w.Fatal(err)
	}
	group, isV2 := strings.CutPrefix(strings.TrimSpace(string(text)), "0::")
	if !isV2 {
		w.Fatalf("process %d is in the cgroups %s", pid, text)
	}
	max, err := os.ReadFile("/sys/fs/cgroup" + group + "/io.max")
	if err != nil {
		w.Fatal(err)
	}
	return string(max)
}
