package e2e

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// Bad input is an error that names its object, and changes nothing.
func TestKernelBadInput(t *testing.T) {
	b := kernelBed(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "good.img")
	odd, empty, fifo := filepath.Join(dir, "odd.img"), filepath.Join(dir, "empty.img"), filepath.Join(dir, "fifo")
	for path, size := range map[string]int64{file: 1 << 20, odd: 1<<20 + 100, empty: 0} {
		if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	taken := b.add("--id=5", b.image(1<<20))
	defer b.del(taken.Device)
	before := things(t)
	for _, tt := range []struct {
		args   []string
		status int
		texts  []string
	}{
		{[]string{"add", dir + "/missing"}, 1, []string{dir + "/missing", "no such file"}},
		{[]string{"add", file + "/x"}, 1, []string{file + "/x", "not a directory"}},
		{[]string{"add", dir}, 1, []string{dir, "is a directory"}},
		{[]string{"add", empty}, 1, []string{empty, "empty"}},
		{[]string{"add", fifo}, 1, []string{fifo, "FIFO"}},
		{[]string{"add", "/dev/null"}, 1, []string{"/dev/null", "character device"}},
		{[]string{"add", odd}, 1, []string{odd, "not a multiple of the sector size 512", "hint: --sizelimit=1048576"}},
		{[]string{"add", "-b4096", "-o512", file}, 1, []string{file, "offset 512", "sector size 4096"}},
		{[]string{"add", "--offset=100", file}, 1, []string{file, "offset 100", "sector size"}},
		{[]string{"add", "--offset=1M", file}, 1, []string{file, "offset 1048576"}},
		{[]string{"add", "--offset=7E", file}, 1, []string{file, "offset"}},
		{[]string{"add", "--sizelimit=100", file}, 1, []string{file, "100"}},
		{[]string{"add", "--id=5", file}, 1, []string{file, "/dev/ublkb5", "exists", "hint: --id"}},
		{[]string{"add", taken.File}, 1, []string{taken.File, "in use", "hint: --shared"}},
		{[]string{"add", "--log-file", dir + "/no/log", file}, 1, []string{dir + "/no/log"}},
		{[]string{"add"}, 2, []string{"FILE"}},
		{[]string{"add", "--transfer=xor", file}, 2, []string{"--transfer"}},
		{[]string{"add", "--key-file=x", file}, 2, []string{"--key-file"}},
		{[]string{"add", "--autoclear=0s", file}, 2, []string{"--autoclear"}},
		{[]string{"add", "--no-such-flag", file}, 2, []string{"--no-such-flag"}},
		{[]string{"add", "--offset=-1", file}, 2, []string{"--offset", `"-1"`}},
		{[]string{"add", "--offset=1Q", file}, 2, []string{"--offset", `"1Q"`}},
		{[]string{"add", "--sizelimit=9223372036854775808", file}, 2, []string{"--sizelimit", "2^63"}},
		{[]string{"add", "-b", "3", file}, 2, []string{"--sector-size"}},
		{[]string{"nonsense"}, 2, []string{"nonsense"}},
		{[]string{"del", dir + "/missing"}, 1, []string{dir + "/missing", "no such file"}},
		{[]string{"del", dir}, 1, []string{dir, "is a directory"}},
		{[]string{"list", "-j", dir + "/missing"}, 1, []string{dir + "/missing", "no such file"}},
		{[]string{"server-of-add"}, 2, []string{"only add starts it"}},
		{[]string{"server-of-add", "7"}, 2, []string{"only add starts it"}},
		{[]string{"scan-of-add"}, 2, []string{"only add starts it"}},
	} {
		b.run(tt.args...).fails(t, tt.status, tt.texts...)
		b.nothingSince(before)
	}
	if list := b.list(); len(list) != 1 || list[0].State != "live" {
		t.Errorf("list is %+v", list)
	}
}

// add refuses a disk that is mounted or otherwise in use.
func TestKernelBadDisk(t *testing.T) {
	b := kernelBed(t)
	dir := b.fileSystem()
	disk := b.list()[0]
	before := things(t)
	b.run("add", disk.Device).fails(t, 1, disk.Device, "in use", "hint: unmount")
	b.run("add", "--foreground", disk.Device).fails(t, 1, disk.Device, "in use")
	b.nothingSince(before)
	if err := os.WriteFile(dir+"/still-there", nil, 0o600); err != nil {
		t.Error(err)
	}
}

// A user without root's rights gets an error that says so.
func TestKernelNoPermission(t *testing.T) {
	b := kernelBed(t)
	file := filepath.Join(b.publicDir(), "disk.img")
	if err := os.WriteFile(file, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(file, 0o666); err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(b.publicDir(), "ublk-loop")
	b.tool("cp", b.bin, bin)
	if err := os.Chmod(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	before := things(t)
	for _, tt := range []struct {
		args []string
		text string
	}{
		{[]string{"add", file}, file},
		{[]string{"add", "--foreground", file}, file},
		{[]string{"del", "0"}, "/dev/ublk-control"},
		{[]string{"del", "--all"}, "/dev/ublk-control"},
		{[]string{"list"}, "/dev/ublk-control"},
		{[]string{"features"}, "/dev/ublk-control"},
	} {
		cmd := exec.Command(bin, tt.args...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		b.runCommand(cmd).fails(t, 1, tt.text, "hint: run it as root")
		b.nothingSince(before)
	}
}

// publicDir returns a directory that all users may read.
func (b *bed) publicDir() string {
	b.Helper()
	dir, err := os.MkdirTemp("", "ublk-loop-test-")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		b.Fatal(err)
	}
	return dir
}

// disableRings sets kernel.io_uring_disabled until the end of the test.
func (b *bed) disableRings(value string) {
	b.Helper()
	const path = "/proc/sys/kernel/io_uring_disabled"
	was, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		ublktest.Lacks(b.TB, ublktest.URingSwitch)
	}
	if err != nil {
		b.Fatal(err)
	}
	b.set(path, value)
	b.Cleanup(func() { b.set(path, string(was)) })
}

// If io_uring is disabled, the hint names the sysctl.
func TestKernelURingDisabled(t *testing.T) {
	b := kernelBed(t, ublktest.Own)
	file := b.image(1 << 20)
	before := things(t)
	b.disableRings("2")
	b.run("add", file).fails(t, 1, file, "io_uring", "hint: sysctl kernel.io_uring_disabled=0")
	b.run("add", "--foreground", file).fails(t, 1, file, "io_uring", "hint: sysctl kernel.io_uring_disabled=0")
	b.run("list").fails(t, 1, "io_uring", "hint: sysctl kernel.io_uring_disabled=0")
	b.nothingSince(before)
}

// withoutModule returns a command that runs with a modprobe that does not find the module,
// on another distribution.
func (b *bed) withoutModule(release string, args ...string) *exec.Cmd {
	b.Helper()
	dir := b.TempDir()
	b.write(filepath.Join(dir, "os-release"), release, 0o644)
	b.write(filepath.Join(dir, "modprobe"), "#!/bin/sh\necho 'modprobe: FATAL: Module ublk_drv not found in directory /lib/modules/6.8.0' >&2; exit 1\n", 0o755)
	script := `mount --bind "$1/modprobe" "$(realpath /sbin/modprobe)" && mount --bind "$1" /etc && shift && exec "$@"`
	return exec.Command("unshare", append([]string{"--mount", "sh", "-c", script, "sh", dir, b.bin}, args...)...)
}

// Without the driver, as after a boot, list finds no device, and recover and del have nothing to do.
// The hint of features says how to load it. add,
// losetup and serve load the driver. If they cannot, the hint names a package.
func TestKernelNoDriver(t *testing.T) {
	b := kernelBed(t, ublktest.Own)
	file := b.image(1 << 20)
	before := things(t)
	b.unload()
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"add", file}, {"add", "--foreground", file}, {"serve"}} {
		r := b.runCommand(b.withoutModule("ID=mint\nID_LIKE=\"ubuntu debian\"\n", args...))
		r.fails(t, 1, "not loaded", "Module ublk_drv not found", "hint: apt install linux-modules-extra-"+strings.TrimSpace(string(release)))
	}
	b.run("features").fails(t, 1, "/dev/ublk-control", "not loaded", "hint: modprobe ublk_drv")
	if devices := b.list(); len(devices) > 0 {
		t.Errorf("devices without a driver: %+v", devices)
	}
	b.ok("recover")
	b.run("recover", file).fails(t, 1, "it has no device")
	b.del("0", "/dev/ublkb1", file)
	b.del("--all")
	b.nothingSince(before)
	for _, args := range [][]string{{"add", file}, {"losetup", "-f", file}} {
		b.ok(args...)
		b.del(file)
		b.rmmod()
	}
	m := b.serve()
	b.del(b.add(file).Device)
	m.stop()
}
