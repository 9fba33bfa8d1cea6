package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	csi "github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

const gib = 1 << 30

// TestKernelMeasure prints the figures of docs/kubernetes.md: how long volumes take beside
// loop devices of the same files, and what they cost. It fails only if a call does.
func TestKernelMeasure(t *testing.T) {
	b := newBed(t, ublktest.Once, ublktest.ScratchDisk, ublktest.Long, ublktest.Plain)
	b.poolOnXFS()
	b.start("--overcommit", "1000000")
	b.measureCopies()
	b.measureMounts()
	b.measureMany(100)

	b.driver.end(unix.SIGTERM)
	b.pool = filepath.Join(b.dir, "layers") // on tmpfs
	b.start("--overcommit", "1000000")
	b.Log("with layers:")
	b.measureMany(100, layered)
}

// measureCopies measures a new volume, and copies of a volume of 10 GiB with 512 MiB of data.
func (b *bed) measureCopies() {
	b.Helper()
	var v *volume
	b.report("new volume of 10 GiB, from create to published", 5, func(i int) {
		v = b.create(fmt.Sprintf("new-%d", i), 10*gib, mountAccess("ext4", writers))
		v.use("a")
	}, func(i int) {
		if i < 4 {
			v.leave("a")
			v.remove()
		}
	})
	b.put(filepath.Join(v.target("a"), "file"), content(1, 512*mib))
	var snapshot string
	b.report("snapshot of a volume in use with 512 MiB of data", 5, func(i int) { snapshot = v.snapshot(fmt.Sprintf("s-%d", i)) },
		func(i int) {
			if i < 4 {
				b.deleteSnapshot(snapshot)
			}
		})
	var c *volume
	b.report("volume from the snapshot, from create to published", 5, func(i int) {
		c = b.create(fmt.Sprintf("clone-%d", i), 10*gib, v.access, fromSnapshot(snapshot))
		c.use("a")
	}, func(int) {
		c.leave("a")
		c.remove()
	})
	b.deleteSnapshot(snapshot)
	v.leave("a")
	v.remove()
}

// measureMounts compares the use of a volume that exists with a loop device of its image.
func (b *bed) measureMounts() {
	b.Helper()
	v := b.create("mounted", gib, mountAccess("ext4", writers))
	v.use("a")
	v.leave("a")
	b.report("existing volume, from stage to published", 20, func(int) { v.use("a") }, func(int) { v.leave("a") })
	b.report("the reverse", 20, func(int) { v.leave("a") }, func(int) { v.use("a") }, func() { v.use("a") })
	v.leave("a")
	image, target := filepath.Join(b.pool, "volumes", v.id+".img"), b.TempDir()
	b.tool("modprobe", "loop")
	b.report("losetup --direct-io=on and mount of the same file", 20, func(int) {
		device := strings.TrimSpace(b.tool("losetup", "--find", "--show", "--direct-io=on", image))
		b.tool("mount", "-t", "ext4", device, target)
	}, func(int) {
		b.tool("umount", "-d", target)
	})
	v.remove()
	b.tool("modprobe", "-r", "loop")
}

// measureMany measures what each of many volumes costs.
func (b *bed) measureMany(n int, change ...func(*csi.CreateVolumeRequest)) {
	b.Helper()
	var volumes []*volume
	start, server, driver := time.Now(), pss(b, b.server), pss(b, b.driver)
	for i := range n {
		v := b.create(fmt.Sprintf("many-%d", i), 16*mib, mountAccess("ext4", writers), change...)
		v.use("a")
		volumes = append(volumes, v)
	}
	b.Logf("%d new volumes, one after another: %v", n, time.Since(start).Round(time.Millisecond))
	b.Logf("memory (PSS) for each: server %d KiB, driver %d KiB", (pss(b, b.server)-server)/n, (pss(b, b.driver)-driver)/n)
	start = time.Now()
	list, err := b.controller.ListVolumes(b.Context(), &csi.ListVolumesRequest{})
	b.ok("list", err)
	b.Logf("list of %d: %v", len(list.GetEntries()), time.Since(start).Round(time.Millisecond))
	for _, v := range volumes {
		v.leave("a")
		v.remove()
	}
}

// report prints the median of several times that an operation takes.
func (b *bed) report(what string, n int, do, undo func(i int), before ...func()) {
	b.Helper()
	for _, f := range before {
		f()
	}
	times := make([]time.Duration, n)
	for i := range times {
		start := time.Now()
		do(i)
		times[i] = time.Since(start)
		undo(i)
	}
	slices.Sort(times)
	b.Logf("%s: median %v of %d, %v to %v", what, times[n/2].Round(time.Millisecond), n,
		times[0].Round(time.Millisecond), times[n-1].Round(time.Millisecond))
}

// pss returns the memory of a process in KiB, with its share of what it has in common with
// others.
func pss(b *bed, p *process) int {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", p.cmd.Process.Pid))
	b.ok("read", err)
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "Pss:" {
			n, err := strconv.Atoi(f[1])
			b.ok("parse", err)
			return n
		}
	}
	b.Fatal("no Pss")
	return 0
}
