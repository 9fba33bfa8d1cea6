package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
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
	b := kernelBed(t)
	s := b.add("--standalone", b.image(8<<20))
	pid := b.apartOfDevice(s)
	b.roundTripSmall(s.Device)
	for file, want := range map[string]string{"comm": "ublk-loop\n", "oom_score_adj": "-1000\n", "environ": ""} {
		if got := b.readFile(fmt.Sprintf("/proc/%d/%s", pid, file)); got != want {
			t.Errorf("%s is %q, want %q", file, got, want)
		}
	}
	b.checkFlusher(fmt.Sprintf("/proc/%d", pid))
	// It closes the lifeline a moment after add, which causes no event.
	waitUntil(t, "an end of the lifeline", func() bool { return !b.hasPipe(pid) })
	b.checkConfined(pid, s.PID)
	b.checkApart(s)
	b.del(s.Device)
}

// checkConfined checks that a process that serves requests has no privilege, and sees no file.
func (b *bed) checkConfined(pid, server int) { b.checkConfinedAs(pid, server, 0x70000000) }

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
	if list, err := os.ReadDir(fmt.Sprintf("/proc/%d/root", pid)); err != nil || len(list) != 0 {
		b.Errorf("its root directory has %q, error %v", list, err)
	}
	if mounts, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", pid)); err != nil || strings.Count(string(mounts), "\n") != 1 {
		b.Errorf("its mounts are %q, error %v", mounts, err)
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

// hasPipe reports whether a process has a pipe open, besides that of its last words.
func (b *bed) hasPipe(pid int) bool {
	b.Helper()
	links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil || len(links) == 0 {
		b.Fatalf("descriptors of process %d: %q, error %v", pid, links, err)
	}
	return slices.ContainsFunc(links, func(link string) bool {
		target, _ := os.Readlink(link) // nothing if it was closed
		return strings.HasPrefix(target, "pipe:") && filepath.Base(link) != "2"
	})
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

// The process that serves the requests ends with its server, however that ends.
func TestKernelApartServerKilled(t *testing.T) {
	b := kernelBed(t)
	s := b.add("--standalone", "--on-crash=reissue", b.image(8<<20))
	process, err := unix.PidfdOpen(b.apartOfDevice(s), 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(s.PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	b.waitForEnd(process)
	b.run("recover", s.Device).succeeds(t)
	b.roundTripSmall(s.Device)
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
