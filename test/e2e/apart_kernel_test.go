package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/ring"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// apartOf returns the process that serves the requests of a server, or 0.
func (b *bed) apartOf(server int) int { return b.childOf(server, "requests-of-") }

// publisherOf returns the process of a server that answers the clients of --metrics, or 0.
func (b *bed) publisherOf(server int) int { return b.childOf(server, "metrics-of-") }

// childOf returns the child of a server that has a role, or 0.
func (b *bed) childOf(server int, role string) int {
	b.Helper()
	paths, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		b.Fatal(err)
	}
	for _, path := range paths {
		stat, _ := os.ReadFile(path) // nothing if the process has ended
		_, after, _ := strings.Cut(string(stat), ") ")
		args, _ := os.ReadFile(filepath.Dir(path) + "/cmdline") // the same
		if f := strings.Fields(after); len(f) > 2 && f[1] == strconv.Itoa(server) && strings.Contains(string(args), "\x00"+role) {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			if err != nil {
				b.Fatal(err)
			}
			return pid
		}
	}
	return 0
}

// processes returns the server of a device, and the process that serves its requests, if that is
// another one.
func (b *bed) processes(s client.Device) []int {
	b.Helper()
	if pid := b.apartOf(s.PID); pid != 0 {
		return []int{s.PID, pid}
	}
	return []int{s.PID}
}

// apartOfDevice is apartOf with a check that there is one.
func (b *bed) apartOfDevice(s client.Device) int {
	b.Helper()
	pid := b.apartOf(s.PID)
	if pid == 0 {
		b.Fatalf("the server %d serves its requests itself", s.PID)
	}
	return pid
}

// The process that serves the requests of a device has no privilege, sees no file, and has only the
// descriptors that it needs. It does all I/O of the device.
func TestKernelApart(t *testing.T) {
	b := kernelBed(t, ublktest.EveryKernel)
	key, _ := b.keyFile(64)
	for _, flags := range [][]string{nil, {"--transfer=aes-xts-plain64", "--key-file", key}} {
		s := b.add(append(flags, "--standalone", b.image(8<<20))...)
		b.roundTripSmall(s.Device)
		b.checkApartDescriptors(s)
		b.checkConfined(b.apartOfDevice(s), s.PID)
		b.checkRingsLimited(b.apartOfDevice(s), s.PID, 0)
		b.checkApart(s)
		b.del(s.Device)
	}
}

// checkApartDescriptors checks that the process that serves the requests of a device has open only what it needs. It
// closes the lifeline a moment after add, which causes no event.
func (b *bed) checkApartDescriptors(s client.Device) {
	b.Helper()
	pid := b.apartOfDevice(s)
	var left []string
	ublktest.Until(b, waitLimit, "it has open only what it needs", func() bool {
		left = b.unknownToApart(s, pid)
		return len(left) == 0
	}, func() string { return fmt.Sprintf("it has open %q", left) })
}

// checkConfined checks that a process that serves requests has no privilege, and sees no file. It is protected like
// a server.
func (b *bed) checkConfined(pid, server int) {
	b.Helper()
	b.checkConfinedAs(pid, server, 0x70000000)
	b.checkProtected(pid)
}

// checkRingsLimited checks that a process has one list of system calls more than its server, on all its threads, and that the
// server makes its rings, for which it has another list, if the kernel does not limit those that the process makes. The server
// has some listeners for that in the end.
func (b *bed) checkRingsLimited(pid, server, listeners int) {
	b.Helper()
	want := b.listsOfCalls(strconv.Itoa(server)) + 1 + b.ringServers()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	if err != nil || len(tasks) < 3 {
		b.Fatalf("tasks are %q: %v", tasks, err)
	}
	for _, task := range tasks {
		if lists := b.listsOfCalls(strings.TrimPrefix(task, "/proc/")); lists != want {
			b.Errorf("%s has %d lists of system calls, want %d", task, lists, want)
		}
	}
	const listener = "anon_inode:seccomp notify"
	var ours int
	ublktest.Until(b, waitLimit, "the server has as many listeners as it needs", func() bool { // it closes one after add
		ours = b.openFiles(server, listener)
		return ours == listeners
	}, func() string { return fmt.Sprintf("it has %d, want %d", ours, listeners) })
	if its := b.openFiles(pid, listener); its != 0 {
		b.Errorf("the process has %d listeners", its)
	}
}

// ringServers returns the number of processes that a server of one process makes rings for.
func (b *bed) ringServers() int {
	b.Helper()
	err := ring.HasTaskRestrictions()
	if errors.Is(err, errors.ErrUnsupported) {
		return 1
	}
	if err != nil {
		b.Fatal(err)
	}
	return 0
}

// listsOfCalls returns the number of lists of system calls of a task below /proc.
func (b *bed) listsOfCalls(task string) int {
	b.Helper()
	_, lists, _ := strings.Cut(b.readFile("/proc/"+task+"/status"), "\nSeccomp_filters:")
	lists, _, _ = strings.Cut(lists, "\n")
	n, err := strconv.Atoi(strings.TrimSpace(lists))
	if err != nil {
		b.Fatal(err)
	}
	return n
}

// checkProtected checks that a process never waits for memory that a device has to free, and that the kernel does
// not kill it to get memory.
func (b *bed) checkProtected(pid int) {
	b.Helper()
	dir := fmt.Sprintf("/proc/%d", pid)
	if adj := b.readFile(dir + "/oom_score_adj"); adj != "-1000\n" {
		b.Errorf("oom_score_adj is %q", adj)
	}
	tasks, err := filepath.Glob(dir + "/task/*")
	if err != nil || len(tasks) < 3 {
		b.Fatalf("tasks are %q: %v", tasks, err)
	}
	for _, task := range tasks {
		b.checkFlusher(task)
	}
	_, locked, _ := strings.Cut(b.readFile(dir+"/status"), "\nVmLck:")
	locked, _, _ = strings.Cut(locked, "\n")
	const program = 1 << 10 // it has more, and a key has less
	if kib, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(locked), " kB")); err != nil || kib < program {
		b.Errorf("locked are %s: %v", locked, err)
	}
}

// checkConfinedAs is checkConfined for a process whose user is the server's number above another.
func (b *bed) checkConfinedAs(pid, server, users int) {
	b.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || len(tasks) < 3 {
		b.Fatalf("tasks are %q: %v", tasks, err)
	}
	user := strconv.Itoa(users + server)
	none := "0000000000000000"
	want := map[string]string{
		"CapInh": none, "CapPrm": none, "CapEff": none, "CapBnd": none, "CapAmb": none, "NoNewPrivs": "1", "Seccomp": "2",
		"Uid": strings.Join([]string{user, user, user, user}, "\t"), "Gid": strings.Join([]string{user, user, user, user}, "\t"), "Groups": " ",
	}
	looked := 0
	for _, task := range tasks {
		status, err := os.ReadFile(task)
		if err != nil {
			continue // the task has ended
		}
		looked++
		lines := map[string]string{}
		for line := range strings.Lines(string(status)) {
			name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":\t")
			lines[name] = value
		}
		for name, w := range want {
			if value, there := lines[name]; value != w {
				b.Errorf("%s: %s is %q (there: %v), want %q", task, name, value, there, w)
			}
		}
	}
	if looked == 0 {
		b.Errorf("no task of %q is there", tasks)
	}
	for _, namespace := range []string{"mnt", "net", "ipc", "uts"} {
		own, err := os.Readlink("/proc/self/ns/" + namespace)
		if err != nil {
			b.Fatal(err)
		}
		if its, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, namespace)); err != nil || its == own {
			b.Errorf("namespace %s is %s, ours %s: %v", namespace, its, own, err)
		}
	}
	b.checkEmptyRoot(pid)
	for file, want := range map[string]string{"comm": "ublk-loop\n", "environ": ""} {
		if got := b.readFile(fmt.Sprintf("/proc/%d/%s", pid, file)); got != want {
			b.Errorf("%s is %q, want %q", file, got, want)
		}
	}
	// Those of a process that may be dumped belong to its user (proc_pid(5)).
	var st unix.Stat_t
	if err := unix.Stat(fmt.Sprintf("/proc/%d/environ", pid), &st); err != nil || st.Uid != 0 {
		b.Errorf("its files in /proc belong to user %d, error %v", st.Uid, err)
	}
}

// checkEmptyRoot checks that a process has only an empty root directory, which nobody may write to.
func (b *bed) checkEmptyRoot(pid int) {
	b.Helper()
	root := fmt.Sprintf("/proc/%d/root/.", pid)
	if list, err := os.ReadDir(root); err != nil || len(list) != 0 {
		b.Errorf("its root directory has %q, error %v", list, err)
	}
	if st, err := os.Stat(root); err != nil || st.Mode() != os.ModeDir {
		b.Errorf("its root directory: %v, error %v", st, err)
	}
	mounts := b.readFile(fmt.Sprintf("/proc/%d/mountinfo", pid))
	if options := strings.Fields(mounts)[5]; strings.Count(mounts, "\n") != 1 || !strings.HasPrefix(options, "ro,nosuid,nodev,noexec") {
		b.Errorf("its mounts are %q", mounts)
	}
}

// checkApart checks that another process serves the requests of a device, and the server has only
// the ring for control.
func (b *bed) checkApart(s client.Device) {
	b.Helper()
	b.apartOfDevice(s)
	if n := b.rings(s.PID); n != 1 {
		b.Errorf("the server has %d rings, want that for control", n)
	}
}

// unknownToApart returns the open files of a process that it does not need to serve the requests of a device.
func (b *bed) unknownToApart(s client.Device, pid int) (left []string) {
	b.Helper()
	links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil || len(links) == 0 {
		b.Fatalf("descriptors of process %d: %q, error %v", pid, links, err)
	}
	known := []string{
		"anon_inode:[eventpoll]", "anon_inode:[eventfd]", "anon_inode:[io_uring]", fmt.Sprintf("/dev/ublkc%d", s.ID), s.File,
	}
	layouts := b.ringServers() // pipes from the server
	for _, link := range links {
		target, err := os.Readlink(link)
		kind, _, _ := strings.Cut(target, ":")
		fd := filepath.Base(link)
		if fd != "2" && kind == "pipe" && layouts > 0 {
			layouts--
			continue
		}
		switch want := map[string]string{"0": "/dev/null", "1": "/dev/null", "2": "pipe", "3": "socket"}[fd]; {
		case err != nil: // it was closed
		case want == "" && !slices.Contains(known, target) && !strings.HasPrefix(target, locks), want != "" && want != kind:
			left = append(left, fd+" on "+target)
		}
	}
	return left
}

// If the process that serves the requests is killed, the server removes the device, or leaves it to the next
// server.
func TestKernelApartKilled(t *testing.T) {
	b := kernelBed(t)
	for _, onCrash := range []string{"fail", "reissue"} {
		s := b.add("--standalone", "--on-crash="+onCrash, b.image(8<<20))
		server, err := unix.PidfdOpen(s.PID, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Kill(b.apartOfDevice(s), unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		b.waitForEnd(server)
		if onCrash == "fail" {
			if list := b.list(); len(list) != 0 {
				t.Errorf("left is %+v", list)
			}
			continue
		}
		b.run("recover", s.Device).succeeds(t)
		b.roundTripSmall(s.Device)
		b.del(s.Device)
	}
}

// The process that serves the requests ends with its server, however that ends, and whatever the process does.
func TestKernelApartServerKilled(t *testing.T) {
	b := kernelBed(t)
	s := b.add("--standalone", "--on-crash=reissue", b.image(8<<20))
	process := b.stopped(b.apartOfDevice(s))
	if err := unix.Kill(s.PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	b.waitForEnd(process)
	b.run("recover", s.Device).succeeds(t)
	b.roundTripSmall(s.Device)
	b.del(s.Device)
}

// stopped stops a process that serves requests, so that it does not notice the end of its server, and returns a pidfd
// of it. Only the kernel ends it then.
func (b *bed) stopped(pid int) (pidfd int) {
	b.Helper()
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err == nil {
		err = unix.Kill(pid, unix.SIGSTOP)
	}
	if err != nil {
		b.Fatal(err)
	}
	return pidfd
}

// whyAlone begins the entry of a log that a server serves requests itself.
const whyAlone = "requests are served without a sandbox"

// If the kernel makes no rings for processes without privileges, the servers serve the requests themselves. They log
// that, and features shows it.
func TestKernelServesAloneWithoutRings(t *testing.T) {
	b := kernelBed(t, ublktest.Own, ublktest.OldestKernel)
	if !b.offersPart("unprivileged rings") {
		t.Error("features shows the part as missing")
	}
	b.disableRings("1")
	if b.offersPart("unprivileged rings") {
		t.Error("features shows the missing part as offered")
	}
	log := filepath.Join(t.TempDir(), "log")
	devices := []client.Device{b.add("--standalone", "--log-file", log, b.image(1<<20))}
	m := b.serve("--on-crash=reissue")
	devices = append(devices, b.add(b.image(1<<20)))
	for i, text := range []string{b.fileText(log), m.errOut.String()} {
		b.servesAlone(devices[i], text)
	}
}

// offersPart reports whether features shows a part of the sandbox as offered.
func (b *bed) offersPart(name string) bool {
	b.Helper()
	var features struct {
		Sandbox []struct {
			Name    string
			Offered bool
		}
	}
	b.decode(b.ok("features", "--json"), &features)
	for _, p := range features.Sandbox {
		if p.Name == name {
			return p.Offered
		}
	}
	b.Fatalf("features has no part %q: %+v", name, features)
	return false
}

// servesAlone checks that the server of a device serves its requests itself, as well protected as another process
// would be, and logs that. It removes the device.
func (b *bed) servesAlone(s client.Device, log string) {
	b.Helper()
	// A server without CAP_KILL cannot end the process that it does without. It closes the process's socket, and does not wait.
	ublktest.Until(b, waitLimit, "the server has no other process", func() bool { return b.apartOf(s.PID) == 0 }, func() string {
		return fmt.Sprintf("process %d is there", b.apartOf(s.PID))
	})
	if !strings.Contains(log, whyAlone) {
		b.Errorf("the log of the server lacks why:\n%s", log)
	}
	b.works(s)
	b.checkProtected(s.PID)
	b.del(s.Device)
}

// A server that lacks a privilege for the other process serves the requests itself.
func TestKernelServesAloneWithoutPrivileges(t *testing.T) {
	b := kernelBed(t, ublktest.Once)
	for _, lacks := range []string{"setuid", "setgid", "setpcap", "kill"} {
		t.Run(lacks, func(t *testing.T) {
			b := b.in(t)
			log := filepath.Join(t.TempDir(), "log")
			r := b.runCommand(exec.Command("setpriv", "--bounding-set", "-"+lacks, b.bin, "add", "--json", "--standalone", "--log-file", log, b.image(1<<20)))
			r.succeeds(t)
			var s client.Device
			b.decode(r.out, &s)
			b.servesAlone(s, b.fileText(log))
		})
	}
}

// A server whose limit of locked memory cannot be removed serves the requests itself, however high the limit is: it holds for
// the other process, and not for the server.
func TestKernelServesAloneWithLockLimit(t *testing.T) {
	b := kernelBed(t, ublktest.Once)
	log := filepath.Join(t.TempDir(), "log")
	const limit = "1099511627776" // more than a process maps at its start
	r := b.runCommand(exec.Command(
		"prlimit", "--memlock="+limit+":"+limit, "setpriv", "--bounding-set", "-sys_resource", b.bin, "add", "--json", "--standalone", "--log-file", log, b.image(1<<20),
	))
	if r.status != 0 { // there are warnings, because that privilege is for other protections too
		t.Fatal(r.err)
	}
	var s client.Device
	b.decode(r.out, &s)
	if pid := b.apartOf(s.PID); pid != 0 {
		t.Errorf("process %d serves the requests", pid)
	}
	if text := b.fileText(log); !strings.Contains(text, whyAlone) || !strings.Contains(text, "RLIMIT_MEMLOCK") {
		t.Errorf("the log of the server lacks why:\n%s", text)
	}
	b.works(s)
	b.del(s.Device)
}

// The server of a device whose partitions the kernel looks for serves the requests itself.
func TestKernelNotApart(t *testing.T) {
	b := kernelBed(t)
	s := b.add("--standalone", "--partscan", b.image(8<<20))
	if pid := b.apartOf(s.PID); pid != 0 {
		t.Errorf("process %d serves the requests", pid)
	}
	b.roundTripSmall(s.Device)
	b.del(s.Device)
}
