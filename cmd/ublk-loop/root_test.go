package main

import (
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
)

// rootBench has a device 0 with a server for the root file system, and a device 1 of another one.
func rootBench(t *testing.T) *bench {
	t.Helper()
	var pids []int
	for _, name := range []string{"@ublk-loop", "ublk-loop"} {
		cmd := exec.Command("sleep", "1000")
		cmd.Args[0] = name
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
		pids = append(pids, cmd.Process.Pid)
	}
	b := newBench()
	for id, pid := range pids {
		b.drv.devices = append(b.drv.devices, client.Device{ID: uint32(id), PID: pid})
	}
	return b
}

// What cannot be done with the root file system's device is refused, with the reason.
func TestRootStorageRefused(t *testing.T) {
	b := rootBench(t)
	b.check(t, []string{"del", "--force", "--all"}, 1, "",
		"ublk-loop: error: remove /dev/ublkb0: the device is for the root file system: device or resource busy\n"+
			"hint: without --force it is removed when it is no longer in use\n")
	if left := b.drv.ids(); !slices.Equal(left, []uint32{0}) {
		t.Errorf("left are %v, want 0", left)
	}
	socket := filepath.Join(t.TempDir(), "socket")
	b.check(t, []string{"upgrade", "--socket", socket}, 1, "",
		"ublk-loop: error: the server of /dev/ublkb0 is for the root file system and comes from the initramfs: connect to "+socket+": no server\n"+
			"hint: "+hintNextBoot+"\n")
	b.check(t, []string{"del", "0"}, 0, "", "") // unused
	b = newBench()
	b.check(t, []string{"add", "--root-storage", "--foreground", "x"}, 2, "",
		"ublk-loop: error: --root-storage: not with --foreground or --autoclear\nhint: see ublk-loop add --help\n")
}

// Only the file systems that hold an initramfs are in memory.
func TestIsMemory(t *testing.T) {
	for fsType, want := range map[int64]bool{unix.TMPFS_MAGIC: true, unix.RAMFS_MAGIC: true, unix.EXT4_SUPER_MAGIC: false, unix.OVERLAYFS_SUPER_MAGIC: false} {
		if isMemory(fsType) != want {
			t.Errorf("%#x: %t", fsType, !want)
		}
	}
}
