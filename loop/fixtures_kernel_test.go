package loop

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// punchHole is the mode of fallocate(2) that frees a range's space.
const punchHole = unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE

// run runs a program, which must succeed, and returns its output.
func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func openFile(t testing.TB, path string, flags int) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, flags, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func alignedMemory(t testing.TB, n int) []byte {
	t.Helper()
	mem, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Munmap(mem) })
	return mem
}

// blockIoctl calls an ioctl of a block device with a range.
func blockIoctl(f *os.File, req uint, start, n uint64) error {
	r := [2]uint64{start, n}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), uintptr(req), uintptr(unsafe.Pointer(&r)))
	if errno != 0 {
		return errno
	}
	return nil
}

var nullDisks atomic.Int32

// nullDisk makes a disk of mib MiB in memory with attributes of null_blk.
func nullDisk(t testing.TB, mib int, attrs map[string]string) string {
	t.Helper()
	run(t, "modprobe", "null_blk", "nr_devices=0")
	if _, err := os.Stat("/sys/kernel/config/nullb"); errors.Is(err, os.ErrNotExist) {
		run(t, "mount", "-t", "configfs", "none", "/sys/kernel/config")
	}
	name := fmt.Sprintf("test%d", nullDisks.Add(1))
	dir := filepath.Join("/sys/kernel/config/nullb", name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(dir); err != nil {
			t.Error(err)
		}
	})
	set := func(attr, value string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, attr), []byte(value), 0); err != nil {
			t.Fatal(err)
		}
	}
	set("size", fmt.Sprint(mib))
	set("memory_backed", "1")
	set("discard", "1")
	for attr, value := range attrs {
		set(attr, value)
	}
	set("power", "1")
	return "/dev/" + name
}

// fileSystem makes a file system on a new disk and mounts it.
func fileSystem(t testing.TB, kind string) string {
	t.Helper()
	if kind != "ext4" {
		run(t, "modprobe", kind)
	}
	disk := nullDisk(t, 320, nil)
	force := map[string]string{"ext4": "-F", "xfs": "-f", "btrfs": "-f"}[kind]
	run(t, "mkfs."+kind, "-q", force, disk)
	return mount(t, kind, disk)
}

func mountTmpfs(t testing.TB) string {
	t.Helper()
	return mount(t, "tmpfs", "none")
}

func mount(t testing.TB, kind, what string) string {
	t.Helper()
	dir := t.TempDir()
	run(t, "mount", "-t", kind, what, dir)
	t.Cleanup(func() { run(t, "umount", dir) })
	return dir
}
