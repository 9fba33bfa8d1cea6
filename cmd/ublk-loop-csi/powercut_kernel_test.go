package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	csi "github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// cutDisk is the file system of a pool, whose disk can lose its power.
type cutDisk struct {
	*bed
	disk, dir string // the mapped disk, and where it is mounted
	table     string // of the working disk
	name      string // in device mapper
}

// newCutDisk makes a file system on the machine's disk, and puts the pool there.
func (b *bed) newCutDisk(mkfs ...string) *cutDisk {
	b.Helper()
	b.tool("modprobe", "dm_mod")
	below := os.Getenv("UBLK_LOOP_DISK")
	sectors := strings.TrimSpace(b.tool("blockdev", "--getsz", below))
	c := &cutDisk{bed: b, dir: filepath.Join(b.dir, mkfs[0]), table: fmt.Sprintf("0 %s linear %s 0", sectors, below), name: "ublk-loop-csi-cut"}
	b.tool("dmsetup", "create", "--noudevsync", c.name, "--table", c.table)
	c.disk = "/dev/" + strings.TrimSpace(b.tool("dmsetup", "info", "-c", "--noheadings", "-o", "blkdevname", c.name))
	b.until("the disk is there", func() bool { return unix.Access(c.disk, unix.R_OK) == nil })
	b.tool(mkfs[0], append(mkfs[1:], c.disk)...)
	b.ok("mkdir", os.Mkdir(c.dir, 0o700))
	b.tool("mount", c.disk, c.dir)
	b.pool = filepath.Join(c.dir, "pool")
	return c
}

// remove is the inverse of newCutDisk.
func (c *cutDisk) remove() {
	c.Helper()
	c.unmount()
	c.tool("dmsetup", "remove", "--retry", "--noudevsync", c.name)
}

// unmount waits until no process has the pool, which the ring of a killed server may have for a moment.
func (c *cutDisk) unmount() {
	c.Helper()
	var err error
	c.until("the pool is not in use", func() bool {
		err = unix.Unmount(c.dir, 0)
		return err == nil
	}, func() string { return fmt.Sprint(err) })
}

// load gives the disk another table at once, without a flush.
func (c *cutDisk) load(table string) {
	c.Helper()
	c.tool("dmsetup", "suspend", "--nolockfs", "--noflush", "--noudevsync", c.name)
	c.tool("dmsetup", "reload", c.name, "--table", table)
	c.tool("dmsetup", "resume", "--noudevsync", c.name)
}

// cut cuts the power of the disk and then of the node, and restores it. Writes that had not reached the
// disk are lost.
func (c *cutDisk) cut(volumes []*volume) {
	c.Helper()
	sectors := strings.Fields(c.table)[1]
	c.load("0 " + sectors + " error")
	c.killNode(volumes)
	c.devicesAre(0)
	// The server no longer lists a device that it is still removing. The removal is over when the node is gone.
	c.until("no device is left", func() bool {
		left, err := filepath.Glob("/dev/ublkc*")
		c.ok("list", err)
		return len(left) == 0
	})
	c.server.end(unix.SIGKILL)
	c.unmount()
	c.load(c.table)
	c.tool("mount", c.disk, c.dir)
	c.serve()
}

// Wherever the power of the node is cut during a call of the driver, the driver and the server start
// with what the disk has, the repeated call succeeds, no data is lost, and nothing is left at the end.
// The pool is on xfs, where files share blocks, and on ext4, where volumes have layers.
func TestKernelPowerCut(t *testing.T) {
	b := newBed(t, ublktest.OldestAndNewest, ublktest.ScratchDisk, ublktest.Long)
	var seen []byte
	s := &stepped{bed: b, args: []string{"--overcommit", "8"}, steps: filepath.Join(b.dir, "steps"), node: true}
	t.Setenv(stepsFile, s.steps)
	for _, tt := range []struct {
		mkfs   []string
		access *csi.VolumeCapability
		change []func(*csi.CreateVolumeRequest)
	}{
		{[]string{"mkfs.xfs", "-q", "-f"}, mountAccess("ext4", oneWriter), nil},
		{[]string{"mkfs.xfs", "-q", "-f"}, blockAccess(oneWriter), nil},
		{[]string{"mkfs.ext4", "-q", "-F"}, mountAccess("ext4", oneWriter), []func(*csi.CreateVolumeRequest){layered}},
		{[]string{"mkfs.ext4", "-q", "-F"}, blockAccess(oneWriter), nil},
	} {
		s.disk, s.access = b.newCutDisk(tt.mkfs...), tt.access
		s.live(tt.change...)
		s.disk.remove()
		b.ok("remove", os.Remove(s.disk.dir))
		known, err := os.ReadFile(s.steps)
		b.ok("steps", err)
		t.Logf("%s: the power was cut %d times", tt.mkfs[0], bytes.Count(known, []byte("\n")))
		seen = append(seen, known...)
		b.ok("forget the steps", os.Remove(s.steps))
	}
	for _, name := range stepNames(t) {
		if !bytes.Contains(seen, []byte(name+"\n")) {
			t.Errorf("the power was not cut at the step %q", name)
		}
	}
}
