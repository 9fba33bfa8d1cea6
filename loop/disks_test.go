package loop

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// This file makes disks of the kernel's test drivers for kernel tests, which
// run one at a time.

// need skips a test for what the machine lacks; where UBLK_LOOP_VM promises
// all, that is a failure.
func need(t testing.TB, err error, what string) {
	t.Helper()
	switch {
	case err == nil:
	case os.Getenv("UBLK_LOOP_VM") != "":
		t.Fatalf("%s: %v", what, err)
	default:
		t.Skipf("%s: %v", what, err)
	}
}

// command runs a program of the system that a test needs.
func command(t testing.TB, name string, args ...string) {
	t.Helper()
	commandWithInput(t, "", name, args...)
}

func commandWithInput(t testing.TB, input, name string, args ...string) {
	t.Helper()
	path, err := exec.LookPath(name)
	need(t, err, name)
	cmd := exec.Command(path, args...)
	cmd.Stdin = strings.NewReader(input)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

// loadModule loads a module that may be built in.
func loadModule(t testing.TB, name string, params ...string) {
	t.Helper()
	out, err := exec.Command("modprobe", append([]string{name}, params...)...).CombinedOutput()
	need(t, err, "load "+name+": "+string(out))
}

// newNullBlk makes a null_blk disk of 256 MiB in memory with some of the
// attributes of its configfs directory (drivers/block/null_blk/main.c).
func newNullBlk(t testing.TB, attrs map[string]string) string {
	t.Helper()
	loadModule(t, "null_blk", "nr_devices=0")
	const configfs = "/sys/kernel/config"
	if _, err := os.Stat(configfs + "/nullb"); err != nil {
		command(t, "mount", "-t", "configfs", "configfs", configfs)
	}
	dir, err := os.MkdirTemp(configfs+"/nullb", "ublkloop")
	need(t, err, "make a null_blk disk")
	t.Cleanup(func() {
		if err := os.Remove(dir); err != nil {
			t.Errorf("remove null_blk disk: %v", err)
		}
	})
	all := map[string]string{"size": "256", "memory_backed": "1", "completion_nsec": "0"}
	for name, value := range attrs {
		all[name] = value
	}
	for name, value := range all {
		writeAttribute(t, filepath.Join(dir, name), value)
	}
	writeAttribute(t, filepath.Join(dir, "power"), "1")
	// Its disk has the directory's name.
	return waitForDisk(t, filepath.Join("/dev", filepath.Base(dir)))
}

func writeAttribute(t testing.TB, path, value string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(value), 0); err != nil {
		t.Fatal(err)
	}
}

// newSCSIDisk makes a scsi_debug disk of 64 MiB in memory with some of its
// module's parameters (drivers/scsi/scsi_debug.c).
func newSCSIDisk(t testing.TB, params ...string) string {
	t.Helper()
	loadModule(t, "sd_mod")
	loadModule(t, "scsi_debug", append([]string{"dev_size_mb=64", "delay=0"}, params...)...)
	t.Cleanup(func() { command(t, "modprobe", "-r", "scsi_debug") })
	const disks = "/sys/bus/pseudo/drivers/scsi_debug/adapter*/host*/target*/*/block/*"
	return waitForDisk(t, filepath.Join("/dev", filepath.Base(waitForMatch(t, disks))))
}

// newPartition makes the first partition of a disk, from start on, in sectors.
func newPartition(t testing.TB, disk, start string) string {
	t.Helper()
	commandWithInput(t, "start="+start+"\n", "sfdisk", "-q", disk)
	return waitForDisk(t, disk+"1")
}

// newDM makes a device-mapper device of a table.
func newDM(t testing.TB, table string) string {
	t.Helper()
	loadModule(t, "dm_mod")
	const name = "ublk-loop-test"
	commandWithInput(t, table, "dmsetup", "create", "--noudevsync", name)
	t.Cleanup(func() { command(t, "dmsetup", "remove", "--retry", "--noudevsync", name) })
	return waitForDisk(t, "/dev/mapper/"+name)
}

// newFileSystem makes a file system on a disk and mounts it.
func newFileSystem(t testing.TB, disk, kind string) string {
	t.Helper()
	force := map[string]string{"ext4": "-F", "xfs": "-f", "btrfs": "-f"}[kind]
	if kind != "ext4" {
		loadModule(t, kind)
	}
	command(t, "mkfs."+kind, force, "-q", disk)
	dir := t.TempDir()
	command(t, "mount", "-t", kind, disk, dir)
	t.Cleanup(func() { command(t, "umount", dir) })
	return dir
}

// waitForDisk waits until a disk that was made a moment ago can be read. Where
// udev makes nodes, that is after the driver is done.
func waitForDisk(t testing.TB, path string) string {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		f, err := os.Open(path)
		if err == nil {
			_ = f.Close()
			return path
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// waitForMatch waits until there is one path that matches. SCSI disks are
// found on a thread of the kernel.
func waitForMatch(t testing.TB, pattern string) string {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		if len(paths) == 1 {
			return paths[0]
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %d of them", pattern, len(paths))
		}
	}
}
