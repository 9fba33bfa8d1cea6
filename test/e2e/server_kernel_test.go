package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/loop"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// PR_SET_IO_FLUSHER sets these flags of /proc/PID/stat (include/linux/sched.h).
const (
	pfMemallocNoIO  = 0x00080000
	pfLocalThrottle = 0x00100000
)

// A server is a session leader, holds nothing that it does not need, and all its threads
// have the properties that only an exec can give to all.
func TestKernelServerProcess(t *testing.T) {
	b := kernelBed(t)
	file := b.image(8 << 20)
	// A caller may have other files open.
	lock, err := os.CreateTemp(t.TempDir(), "lock")
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	cmd := exec.Command("sh", "-c", `ulimit -c 0; trap "" TERM INT HUP; umask 0; exec "$0" add --json "$1"`, b.bin, file)
	// More files than the server has itself, so that they also have the lowest numbers.
	cmd.ExtraFiles = slices.Repeat([]*os.File{lock}, 16)
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), "SECRET=x", "GODEBUG=madvdontneed=1")
	r := b.runCommand(cmd)
	r.succeeds(t)
	var s client.Device
	b.decode(r.out, &s)
	b.checkServer(s)
	for fd := range 3 {
		b.checkLink(s, fmt.Sprintf("fd/%d", fd), "/dev/null")
	}
	stat := b.proc(s, "stat")
	afterState := stat[strings.LastIndexByte(stat, ')')+len(") S"):] // the server may run or sleep
	if !strings.HasPrefix(afterState, fmt.Sprintf(" 1 %d %d 0 -1 ", s.PID, s.PID)) {
		t.Errorf("parent, group, session or terminal: %s", stat)
	}
	pidfd, err := unix.PidfdOpen(s.PID, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.PidfdSendSignal(pidfd, unix.SIGTERM, nil, 0); err != nil { // the starting shell ignored SIGTERM
		t.Fatal(err)
	}
	b.waitForEnd(pidfd)
}

func TestKernelForegroundProcess(t *testing.T) {
	b := kernelBed(t)
	f, device := b.foreground([]string{"SECRET=x", "GODEBUG=madvdontneed=1"}, b.image(1<<20))
	b.checkServer(b.list(device)[0])
	b.checkApartDescriptors(b.list(device)[0])
	f.signal(unix.SIGTERM)
	f.end()
}

// checkServer checks the properties of a server in the background or in the foreground.
func (b *bed) checkServer(s client.Device) {
	b.Helper()
	b.checkLink(s, "cwd", "/")
	b.checkLink(s, "root", "/")
	b.checkDescriptors(s)
	for file, want := range map[string]string{
		"comm": "ublk-loop\n", "oom_score_adj": "-1000\n", "environ": "GODEBUG=madvdontneed=1\x00",
	} {
		if got := b.proc(s, file); got != want {
			b.Errorf("%s is %q, want %q", file, got, want)
		}
	}
	if !strings.Contains(b.proc(s, "status"), "\nUmask:\t0077\n") {
		b.Error("what it makes could be read by others: its umask is not 077")
	}
	own, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		b.Fatal(err)
	}
	if its, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", s.PID)); err != nil || its == own {
		b.Errorf("mount namespace is %s, ours %s: %v", its, own, err)
	}
	needed := []string{"/", "/proc", "/sys", "/dev", "/run", "/run/ublk-loop"}
	for line := range strings.Lines(b.proc(s, "mountinfo")) {
		// A container may have single device nodes mounted in /dev.
		if point := strings.Fields(line)[4]; !slices.Contains(needed, point) && !strings.HasPrefix(point, "/dev/ublk") {
			b.Errorf("it holds the mount %s", point)
		}
	}
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", s.PID))
	if err != nil || len(tasks) < 3 {
		b.Fatalf("tasks are %q: %v", tasks, err)
	}
	for _, task := range tasks {
		b.checkTask(task)
	}
}

// checkFlusher checks that a thread is an I/O flusher (PR_SET_IO_FLUSHER in prctl(2)).
func (b *bed) checkFlusher(dir string) {
	b.Helper()
	stat, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return // a worker of the kernel that has ended
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')'):]))
	var flags uint64
	if _, err := fmt.Sscan(fields[7], &flags); err != nil {
		b.Fatal(err)
	}
	if flags&pfMemallocNoIO == 0 || flags&pfLocalThrottle == 0 {
		b.Errorf("%s is no I/O flusher: flags %#x", dir, flags)
	}
}

// checkTask checks the properties of a thread.
func (b *bed) checkTask(dir string) {
	b.Helper()
	b.checkFlusher(dir)
	status, err := os.ReadFile(filepath.Join(dir, "status"))
	if err != nil {
		return
	}
	caps := uint64(1<<unix.CAP_SYS_ADMIN | 1<<unix.CAP_IPC_LOCK | 1<<unix.CAP_DAC_OVERRIDE | 1<<unix.CAP_KILL)
	// Where the driver has no flag against the partition scan, the threads of queues drop CAP_SYS_ADMIN.
	all, queue := fmt.Sprintf("%016x", caps), fmt.Sprintf("%016x", caps&^(1<<unix.CAP_SYS_ADMIN))
	wanted := map[string]string{"CapPrm": all, "CapEff": all, "CapBnd": all, "NoNewPrivs": "1"}
	found := 0
	for _, line := range strings.Split(string(status), "\n") {
		name, value, _ := strings.Cut(line, ":\t")
		want, checked := wanted[name]
		if checked {
			found++
		}
		starter := name == "CapBnd" && value == "0000000000000000" // the thread that has started the other process
		if checked && value != want && !starter && (value != queue || name == "CapBnd") {
			b.Errorf("%s: %s is %s, want %s", dir, name, value, want)
		}
	}
	if found != len(wanted) {
		b.Errorf("%s has %d of %d properties:\n%s", dir, found, len(wanted), status)
	}
}

// checkDescriptors checks that a server has only the open files that it needs.
func (b *bed) checkDescriptors(s client.Device) {
	b.Helper()
	// The server closes the socket to its starter a moment after the starter has ended,
	// which causes no event.
	var left []string
	ublktest.Until(b, waitLimit, "the server has open only what it needs", func() bool {
		left = b.unknownDescriptors(s)
		return len(left) == 0
	}, func() string { return fmt.Sprintf("it has open %q", left) })
}

// locks is the beginning of the paths of the locks of backing files.
const locks = "/run/ublk-loop/locks/file-"

// unknownDescriptors returns the open files that a server does not need.
func (b *bed) unknownDescriptors(s client.Device) (left []string) {
	b.Helper()
	links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", s.PID))
	if err != nil {
		b.Fatal(err)
	}
	known := []string{
		"anon_inode:[eventpoll]", "anon_inode:[eventfd]", "anon_inode:[io_uring]", "anon_inode:[pidfd]",
		"/dev/ublk-control", fmt.Sprintf("/dev/ublkc%d", s.ID), s.File, loop.CrashPath(s.ID),
	}
	for _, f := range s.Files {
		known = append(known, f.File)
	}
	// One socket leads to the process that serves the requests, and one pipe has its standard error.
	apart := map[string]bool{"socket": false, "pipe": false}
	for _, link := range links {
		target, err := os.Readlink(link)
		fd := filepath.Base(link)
		if err != nil || slices.Contains([]string{"0", "1", "2"}, fd) {
			continue
		}
		kind, _, _ := strings.Cut(target, ":")
		if seen, ok := apart[kind]; ok && !seen {
			apart[kind] = true
			continue
		}
		if !slices.Contains(known, target) && !strings.HasPrefix(target, locks) {
			left = append(left, fd+" on "+target)
		}
	}
	return left
}

func (b *bed) proc(s client.Device, file string) string {
	b.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", s.PID, file))
	if err != nil {
		b.Fatal(err)
	}
	return string(data)
}

func (b *bed) checkLink(s client.Device, name, want string) {
	b.Helper()
	if got, err := os.Readlink(fmt.Sprintf("/proc/%d/%s", s.PID, name)); err != nil || got != want {
		b.Errorf("%s is %s, want %s: %v", name, got, want, err)
	}
}

// A server prevents the unmount of its file's file system, but of no other.
func TestKernelServerMounts(t *testing.T) {
	b := kernelBed(t)
	below := b.fileSystem() // /dev/ublkbN: a server that held the mount could not be removed
	other := t.TempDir()
	b.tool("mount", "-t", "tmpfs", "none", other)
	nested := filepath.Join(other, "nested")
	if err := os.Mkdir(nested, 0o700); err != nil {
		t.Fatal(err)
	}
	b.tool("mount", "-t", "tmpfs", "none", nested)
	home := t.TempDir()
	b.tool("mount", "-t", "tmpfs", "none", home)
	file := filepath.Join(home, "disk.img")
	if err := os.WriteFile(file, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	disk := b.list()[0]
	s := b.add(file)
	b.tool("umount", nested, other)
	if err := unix.Unmount(home, 0); err != unix.EBUSY {
		t.Errorf("unmount of the file's file system: %v", err)
	}
	b.tool("umount", below)
	b.del(disk.Device) // nothing holds its mount
	b.tool("mount", "-t", "tmpfs", "none", below)
	b.del(s.Device)
	b.tool("umount", home)
}

// Root can attach a file of another owner, and is not bound by the user's limit on locked
// memory, because the server keeps the capabilities for that.
func TestKernelServerCapabilities(t *testing.T) {
	b := kernelBed(t)
	file := b.image(1 << 20)
	if err := os.Chown(file, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []string{"auto", "off"} {
		cmd := exec.Command("sh", "-c", `ulimit -l 0; exec "$0" add --json --zero-copy=$1 "$2"`, b.bin, mode, file)
		r := b.runCommand(cmd)
		r.succeeds(t)
		var s client.Device
		b.decode(r.out, &s)
		b.roundTripSmall(s.Device)
		b.del(s.Device)
	}
}

func (b *bed) roundTripSmall(device string) {
	b.Helper()
	f, err := os.OpenFile(device, os.O_RDWR|unix.O_SYNC, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(make([]byte, 64<<10), 0); err != nil {
		b.Error(err)
	}
}

// add also works in a chroot, in which the outer mounts are out of reach.
func TestKernelChroot(t *testing.T) {
	b := kernelBed(t)
	root := t.TempDir()
	for _, dir := range []string{"proc", "sys", "dev", "run"} {
		if err := os.Mkdir(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
		b.tool("mount", "--bind", "/"+dir, filepath.Join(root, dir))
		t.Cleanup(func() { b.tool("umount", filepath.Join(root, dir)) })
	}
	b.tool("cp", b.bin, filepath.Join(root, "ublk-loop"))
	if err := os.WriteFile(filepath.Join(root, "disk.img"), make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"add", "--id=9", "/disk.img"}, {"del", "9"}} {
		r := b.runCommand(exec.Command("chroot", append([]string{root, "/ublk-loop"}, args...)...))
		r.succeeds(t)
		for _, dir := range []string{"/proc/self", "/sys/class", "/dev/null", root + "/proc/self"} {
			if _, err := os.Stat(dir); err != nil {
				t.Errorf("after %q: %v", args, err)
			}
		}
	}
}

// A mount namespace ends with its processes, and a server is not one of them.
func TestKernelUnshared(t *testing.T) {
	b := kernelBed(t)
	file := b.image(1 << 20)
	dir := t.TempDir()
	below := b.add(b.image(64 << 20))
	b.tool("mkfs.ext4", "-q", below.Device)
	b.tool("unshare", "--mount", "sh", "-c", `mount "$0" "$1" && "$2" add "$3"`, below.Device, dir, b.bin, file)
	b.del(below.Device) // its mount has ended with the namespace
	b.del(file)
}
