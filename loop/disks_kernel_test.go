package loop

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// scsiDebugDisk makes a disk of 64 MiB in memory with parameters of scsi_debug
// (drivers/scsi/scsi_debug.c).
func scsiDebugDisk(t testing.TB, params ...string) string {
	t.Helper()
	ublktest.NeedsModule(t, "scsi_debug")
	run(t, "modprobe", "sd_mod")
	run(t, "modprobe", append([]string{"scsi_debug", "dev_size_mb=64", "delay=0"}, params...)...)
	// Not modprobe -r, because that also unloads scsi_mod. Then the hosts are numbered
	// from 0 again, and 7.3 still has a workqueue with the old name.
	t.Cleanup(func() { unload(t, "scsi_debug") })
	const disks = "/sys/bus/pseudo/drivers/scsi_debug/adapter*/host*/target*/*/block/*"
	return waitForDisk(t, filepath.Join("/dev", filepath.Base(waitForMatch(t, disks))))
}

// unload removes a module when it is no longer in use. A thread of the kernel may still
// look for partitions on the disk of a short test.
func unload(t testing.TB, module string) {
	t.Helper()
	waitUntil(t, module+" unused", func() bool {
		count, err := os.ReadFile(filepath.Join("/sys/module", module, "refcnt"))
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(count)) == "0"
	})
	run(t, "rmmod", module)
}

// partition makes the only partition of a disk, from sector start on.
func partition(t testing.TB, disk, start string) string {
	t.Helper()
	run(t, "sh", "-c", `echo "start=$1" | sfdisk -q "$0"`, disk, start)
	name := disk + "1"
	if disk[len(disk)-1] <= '9' {
		name = disk + "p1"
	}
	return waitForDisk(t, name)
}

// mappedName is the name of the device of mappedDisk.
const mappedName = "ublk-loop-test"

// mappedStack makes a device-mapper device for each table of a text in the concise format, and
// returns the last.
func mappedStack(t testing.TB, text string) string {
	t.Helper()
	t.Setenv("DM_DISABLE_UDEV", "1") // dmsetup makes the names that the tables use
	for _, table := range strings.Split(text, ";") {
		name := strings.Split(table, ",")[0]
		t.Cleanup(func() { run(t, "dmsetup", "remove", "--retry", name) })
	}
	run(t, "dmsetup", "create", "--concise", text)
	last := text[strings.LastIndex(text, ";")+1:]
	return waitForDisk(t, "/dev/mapper/"+strings.Split(last, ",")[0])
}

// mappedDisk makes a device-mapper device from a table, or from tables in the concise format.
func mappedDisk(t testing.TB, table string) string {
	t.Helper()
	run(t, "modprobe", "dm_mod")
	if strings.Contains(table, ";") {
		return mappedStack(t, table)
	}
	create := exec.Command("dmsetup", "create", "--noudevsync", mappedName)
	if strings.Contains(table, " verity ") {
		run(t, "modprobe", "dm_verity")
		create.Args = append(create.Args, "--readonly")
	}
	create.Stdin = strings.NewReader(table + "\n")
	if out, err := create.CombinedOutput(); err != nil {
		t.Fatalf("dmsetup create: %v\n%s\n%s", err, table, out)
	}
	t.Cleanup(func() { run(t, "dmsetup", "remove", "--retry", "--noudevsync", mappedName) })
	// udev makes the name in /dev/mapper, the kernel makes this node.
	node := run(t, "dmsetup", "info", "-c", "--noheadings", "-o", "blkdevname", mappedName)
	return waitForDisk(t, "/dev/"+strings.TrimSpace(node))
}

// waitForDisk waits until a new disk can be read.
func waitForDisk(t testing.TB, path string) string {
	t.Helper()
	waitUntil(t, path, func() bool {
		f, err := os.Open(path)
		if err == nil {
			_ = f.Close()
		}
		return err == nil
	})
	return path
}

// waitForMatch waits for a path that matches. A thread of the kernel finds SCSI disks
// after the module is loaded.
func waitForMatch(t testing.TB, pattern string) string {
	t.Helper()
	var paths []string
	waitUntil(t, pattern, func() bool {
		var err error
		if paths, err = filepath.Glob(pattern); err != nil {
			t.Fatal(err)
		}
		return len(paths) == 1
	})
	return paths[0]
}

func waitUntil(t testing.TB, what string, ok func() bool) {
	t.Helper()
	ublktest.Until(t, 30*time.Second, what, ok)
}
