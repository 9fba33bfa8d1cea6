package e2e

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// pairLimit is how long an add and a del may take together, in emulation and
// at the fastest, beyond ten times what the command takes to do nothing: how busy
// the machine is is not of interest.
const pairLimit = time.Second

// startTime returns how long the command takes, at the fastest, to do nothing.
func (b *bed) startTime() time.Duration {
	b.Helper()
	fastest := time.Hour
	for range 5 {
		r := b.run("version")
		r.succeeds(b.TB)
		fastest = min(fastest, r.took)
	}
	return fastest
}

// After any number of cycles nothing refers to the driver, which can be
// unloaded; each takes well under a second.
func TestKernelCycles(t *testing.T) {
	b := kernelBed(t, ublktest.Own, ublktest.Plain)
	file := b.image(1 << 20)
	before := things(t)
	var all time.Duration
	fastest := time.Hour
	const cycles = 20
	for range cycles {
		start := all
		for _, args := range [][]string{{"add", "--id=3", file}, {"del", "3"}} {
			r := b.run(args...)
			r.succeeds(t)
			all += r.took
		}
		fastest = min(fastest, all-start)
		b.nothingSince(before)
	}
	t.Logf("an add and a del take %v, at the fastest %v", all/cycles, fastest)
	if limit := pairLimit + 10*b.startTime(); fastest > limit {
		t.Errorf("an add and a del take %v, more than %v", fastest, limit)
	}
	b.unload()
	b.tool("modprobe", "ublk_drv")
	b.add(file)
	b.del(file)
}

// unload unloads the driver. The test needs ublktest.Own.
func (b *bed) unload() {
	b.Helper()
	if err := b.ctl.Close(); err != nil {
		b.Fatal(err)
	}
	// The last release of a device is the kernel's, a moment after its end.
	waitUntil(b, "no reference to ublk_drv", func() bool {
		count, err := os.ReadFile("/sys/module/ublk_drv/refcnt")
		return err == nil && strings.TrimSpace(string(count)) == "0"
	})
	b.tool("rmmod", "ublk_drv")
	b.Cleanup(func() {
		if unix.Access("/dev/ublk-control", unix.F_OK) != nil {
			_ = exec.Command("modprobe", "ublk_drv").Run()
		}
	})
}
