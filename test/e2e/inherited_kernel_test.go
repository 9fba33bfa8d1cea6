package e2e

import (
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// portrait maps the names of a process's inherited attributes to their values.
type portrait map[string]string

// portrayed lists the lines of /proc/PID/status that belong to a portrait.
var portrayed = []string{
	"Umask", "Uid", "Gid", "Groups", "SigIgn", "CapBnd", "NoNewPrivs", "Seccomp",
	"Speculation_Store_Bypass", "SpeculationIndirectBranch", "THP_enabled", "Mems_allowed",
}

// perThread lists the lines of /proc/PID/status in which threads of a server differ.
var perThread = []string{"CapInh", "CapPrm", "CapEff", "CapAmb", "Cpus_allowed"}

// inheritedFlags are the flags of /proc/PID/stat (include/linux/sched.h) that a process
// inherits or asks for.
const inheritedFlags = pfMemallocNoIO | pfLocalThrottle | pfMCEProcess

// pfMCEProcess says that a process has its own policy for machine checks (PF_MCE_PROCESS,
// PR_MCE_KILL in prctl(2)).
const pfMCEProcess = 0x00000080

// portray returns the portrait of a process.
func (b *bed) portray(pid int) portrait {
	b.Helper()
	p := portrait{}
	read := func(name string) string {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, name))
		if err != nil {
			b.Fatal(err)
		}
		return string(text)
	}
	for line := range strings.Lines(read("limits")) {
		p["limit "+strings.TrimSpace(line[:26])] = strings.Join(strings.Fields(line[26:]), " ")
	}
	for line := range strings.Lines(read("status")) {
		if name, value, _ := strings.Cut(line, ":"); slices.Contains(portrayed, name) {
			p[name] = strings.TrimSpace(value)
		}
	}
	for _, name := range []string{"Umask", "Uid", "Gid", "Groups", "SigIgn", "CapBnd", "NoNewPrivs", "limit Max open files"} {
		if _, found := p[name]; !found { // a kernel may lack the others
			b.Fatalf("process %d has no %s: %v", pid, name, p)
		}
	}
	p["SigBlk"] = b.mask(pid, "SigBlk", func(all, thread uint64) uint64 { return all & thread })
	for _, name := range perThread {
		p[name] = b.mask(pid, name, func(all, thread uint64) uint64 { return all | thread })
	}
	for _, name := range []string{"coredump_filter", "personality", "oom_score_adj", "timerslack_ns", "environ"} {
		p[name] = strings.TrimSpace(read(name))
	}
	if text, err := os.ReadFile(fmt.Sprintf("/proc/%d/ksm_stat", pid)); err == nil { // if the kernel can merge pages
		_, any, _ := strings.Cut(string(text), "ksm_merge_any:")
		p["merging"], _, _ = strings.Cut(any, "\n")
	}
	for _, name := range []string{"cwd", "root"} {
		target, err := os.Readlink(fmt.Sprintf("/proc/%d/%s", pid, name))
		if err != nil {
			b.Fatal(err)
		}
		p[name] = target
	}
	b.portrayThread(p, pid, read("stat"))
	return p
}

// mask joins a line of /proc/PID/status of all threads of a process. Go blocks all signals of
// a thread for a moment, while the thread makes another. The thread of a queue has its own
// processors and may have fewer capabilities, and the first thread may be one.
func (b *bed) mask(pid int, name string, join func(all, thread uint64) uint64) string {
	b.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil {
		b.Fatal(err)
	}
	var masks []uint64
	for _, task := range tasks {
		text, err := os.ReadFile(task)
		_, line, found := strings.Cut(string(text), "\n"+name+":")
		if err != nil || !found {
			continue // it has ended
		}
		var mask uint64
		if _, err := fmt.Sscanf(line, "%x", &mask); err != nil {
			b.Fatalf("%s: %v", task, err)
		}
		masks = append(masks, mask)
	}
	if len(masks) == 0 {
		b.Fatalf("no thread of process %d has %s", pid, name)
	}
	all := masks[0]
	for _, mask := range masks[1:] {
		all = join(all, mask)
	}
	return fmt.Sprintf("%016x", all)
}

// portrayThread adds the attributes of a thread.
func (b *bed) portrayThread(p portrait, tid int, stat string) {
	b.Helper()
	var flags uint64
	if _, err := fmt.Sscan(strings.Fields(stat[strings.LastIndexByte(stat, ')'):])[7], &flags); err != nil {
		b.Fatal(err)
	}
	p["flags"] = fmt.Sprintf("%#x", flags&inheritedFlags)
	attr, err := unix.SchedGetAttr(tid, 0)
	if err != nil {
		b.Fatal(err)
	}
	p["scheduler"] = fmt.Sprintf("policy %d, flags %d, nice %d, priority %d, clamp %d to %d",
		attr.Policy, attr.Flags, attr.Nice, attr.Priority, attr.Util_min, attr.Util_max)
	priority, _, errno := unix.Syscall(unix.SYS_IOPRIO_GET, ioprioWhoProcess, uintptr(tid), 0)
	if errno != 0 {
		b.Fatal(errno)
	}
	p["io priority"] = fmt.Sprint(priority)
}

// differ returns the names and values in which two portraits differ.
func (p portrait) differ(other portrait) []string {
	var found []string
	for _, name := range slices.Sorted(maps.Keys(p)) {
		if p[name] != other[name] {
			found = append(found, fmt.Sprintf("%s: %q, %q", name, p[name], other[name]))
		}
	}
	return found
}

// drop removes signals from a line of /proc/PID/status, which must have them.
func (p portrait) drop(t *testing.T, name string, signals uint64) {
	t.Helper()
	set, err := strconv.ParseUint(p[name], 16, 64)
	if err != nil || set&signals != signals {
		t.Errorf("%s is %s, without %#x: error %v", name, p[name], signals, err)
	}
	p[name] = fmt.Sprintf("%016x", set&^signals)
}

// odd returns a bed whose command starts from a process with unusual attributes: all or
// some.
func (b *bed) odd(how string) *bed {
	b.Helper()
	path := filepath.Join(b.TempDir(), "odd")
	b.write(path, fmt.Sprintf("#!/bin/sh\n%s=%s exec %s %s \"$@\"\n", oddVariable, how, b.self(), b.bin), 0o755)
	return &bed{b.TB, path, b.ctl}
}

// self returns the path of this program.
func (b *bed) self() string {
	b.Helper()
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	return self
}

// A server keeps none of its starter's unusual attributes.
func TestKernelInherited(t *testing.T) {
	ublktest.Require(t, ublktest.OldestAndNewest)
	b := kernelBed(t)
	for name, serve := range map[string]func(*bed) (client.Device, func()){
		"add": func(b *bed) (client.Device, func()) {
			s := b.add("--on-crash=reissue", b.image(8<<20))
			return s, func() { b.del(s.Device) }
		},
		"foreground": func(b *bed) (client.Device, func()) {
			f, device := b.foreground(nil, b.image(8<<20))
			return b.list(device)[0], func() {
				b.del(device)
				f.end()
			}
		},
		"recover": func(b *bed) (client.Device, func()) {
			s := b.add("--on-crash=reissue", b.image(8<<20))
			b.killServer(s)
			return b.recover(s), func() { b.del(s.Device) }
		},
		"serve": func(b *bed) (client.Device, func()) {
			m := b.serve()
			return b.add(b.image(8 << 20)), m.stop
		},
		"supervise": func(b *bed) (client.Device, func()) {
			m := b.serve("--supervise")
			return b.add(b.image(8 << 20)), m.stop
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := b.in(t)
			var portraits []portrait
			for _, b := range []*bed{b, b.odd(oddAll)} {
				s, end := serve(b)
				portraits = append(portraits, b.portray(s.PID))
				b.works(s) // one of the writes is beyond oddFile
				end()
			}
			if name != "add" && name != "recover" {
				// nohup(1) remains effective for a server in the foreground.
				portraits[1].drop(t, "SigIgn", 1<<(unix.SIGHUP-1))
			}
			if found := portraits[0].differ(portraits[1]); len(found) > 0 {
				t.Errorf("of a clean and an odd starter, the server has\n%s", strings.Join(found, "\n"))
			}
		})
	}
}

// A server refuses to start with a limit that would fail I/O and that it cannot raise.
func TestKernelInheritedRefused(t *testing.T) {
	b := kernelBed(t, ublktest.Once)
	file := b.image(8 << 20)
	limited := b.odd(oddLimited)
	before := things(t)
	for _, args := range [][]string{{"add", file}, {"add", "--foreground", file}, {"serve"}, {"serve", "--supervise"}} {
		limited.run(args...).fails(t, 1, "the size of files (RLIMIT_FSIZE)", "limited to 1048576")
		b.nothingSince(before)
	}
}

// A server keeps the scheduling and the core limit that a service manager has set.
func TestKernelInheritedFromManager(t *testing.T) {
	b := kernelBed(t, ublktest.Once)
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: "@ublk-loop-test", Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	file := b.image(8 << 20)
	var portraits []portrait
	for _, b := range []*bed{b, b.odd(oddAll)} {
		f, device := b.foreground([]string{"NOTIFY_SOCKET=@ublk-loop-test"}, file)
		portraits = append(portraits, b.portray(f.cmd.Process.Pid))
		b.del(device)
		f.end()
	}
	portraits[1].drop(t, "SigIgn", 1<<(unix.SIGHUP-1))
	for name, kept := range map[string]string{"io priority": fmt.Sprint(ioprioBestEffort7), "limit Max core file size": "1048576 1048576 bytes"} {
		if portraits[1][name] != kept {
			t.Errorf("%s is %s, want %s", name, portraits[1][name], kept)
		}
		portraits[1][name] = portraits[0][name]
	}
	if !strings.HasPrefix(portraits[1]["scheduler"], "policy 2,") {
		t.Errorf("scheduler is %s", portraits[1]["scheduler"])
	}
	for _, name := range []string{"scheduler", "timerslack_ns", "Cpus_allowed"} { // the second depends on the first
		portraits[1][name] = portraits[0][name]
	}
	if found := portraits[0].differ(portraits[1]); len(found) > 0 {
		t.Errorf("of a clean and an odd manager, the server has\n%s", strings.Join(found, "\n"))
	}
}

// The helper of mount(8) starts no server, and makes the same mount in both cases.
func TestKernelInheritedMount(t *testing.T) {
	b := kernelBed(t, ublktest.OldestAndNewest)
	helper := filepath.Join(t.TempDir(), "mount.ublk-loop")
	if err := os.Symlink(b.bin, helper); err != nil {
		t.Fatal(err)
	}
	image, dir := b.image(16<<20), t.TempDir()
	b.tool("mkfs.ext4", "-q", "-F", image)
	m := b.serve()
	before := b.portray(m.pid())
	var options []string
	for _, odd := range []string{"", oddAll} {
		cmd := withEnv(exec.Command(b.self(), helper, image, dir, "-o", "noatime"), oddVariable+"="+odd)
		if odd == "" {
			cmd = exec.Command(helper, image, dir, "-o", "noatime")
		}
		b.runCommand(cmd).succeeds(t)
		text, err := os.ReadFile("/proc/self/mounts")
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if fields := strings.Fields(line); fields[1] == dir {
				options = append(options, strings.Join(fields[1:], " "))
			}
		}
		b.write(filepath.Join(dir, "file"), strings.Repeat("x", 2*oddFile), 0o600)
		s := b.list()[0]
		b.tool("umount", dir)
		b.isGone(s)
	}
	if len(options) != 2 || options[0] != options[1] {
		t.Errorf("mounts are %q", options)
	}
	if found := before.differ(b.portray(m.pid())); len(found) > 0 {
		t.Errorf("the server has changed:\n%s", strings.Join(found, "\n"))
	}
}

// A runtime gets the attributes of the wrapper's starter, because the container belongs
// to the starter.
func TestKernelInheritedByRuntime(t *testing.T) {
	w := kernelBed(t, ublktest.OldestAndNewest).wrap("exec sleep 1000")
	image := w.imageOf("squashfs", rootTree(w, "x"))
	var portraits []portrait
	for _, program := range []string{w.real, w.wrapper} {
		cmd := withEnv(exec.Command(w.self(), program, "create", "--bundle", w.bundle(asked{"image": image}, "true"), "c"), oddVariable+"="+oddAll)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		comm := fmt.Sprintf("/proc/%d/comm", cmd.Process.Pid)
		waitUntil(t, "the runtime runs", func() bool { return w.readFile(comm) == "sleep\n" })
		portraits = append(portraits, w.portray(cmd.Process.Pid))
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // it was killed
	}
	// Go's runtime keeps the ignored and blocked signals that docs/containers.md lists.
	portraits[0].drop(t, "SigIgn", 1<<(unix.SIGTERM-1)|1<<(unix.SIGUSR1-1)|1<<(unix.SIGPIPE-1)|1<<(unix.SIGXFSZ-1))
	portraits[0].drop(t, "SigBlk", 1<<(unix.SIGTERM-1))
	if found := portraits[0].differ(portraits[1]); len(found) > 0 {
		t.Errorf("without and with the wrapper, the runtime has\n%s", strings.Join(found, "\n"))
	}
}
