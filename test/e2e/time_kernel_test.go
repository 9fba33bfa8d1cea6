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

// pairLimit is the maximum time of an add and a del together, in emulation and in the
// fastest of many cycles, beyond ten times the command's start time. The start time
// accounts for other load on the machine.
const pairLimit = time.Second

// startTime returns the shortest time that the command takes to do nothing.
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

// After any number of cycles nothing refers to the driver, so that it can be unloaded.
// Each cycle takes well under a second.
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
	b.rmmod()
	b.Cleanup(func() {
		if unix.Access("/dev/ublk-control", unix.F_OK) != nil {
			_ = exec.Command("modprobe", "ublk_drv").Run()
		}
	})
}

// rmmod removes the driver, which no process has open.
func (b *bed) rmmod() {
	b.Helper()
	// The kernel releases a device a moment after the device's end.
	waitUntil(b, "no reference to ublk_drv", func() bool {
		count, err := os.ReadFile("/sys/module/ublk_drv/refcnt")
		return err == nil && strings.TrimSpace(string(count)) == "0"
	})
	b.tool("rmmod", "ublk_drv")
}
