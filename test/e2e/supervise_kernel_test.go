package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A killed server gets a successor, which continues to serve. A signal to the supervisor
// ends both.
func TestKernelSupervise(t *testing.T) {
	b := kernelBed(t)
	m := b.serve("--supervise")
	s := b.add(b.image(1 << 20))
	if s.PID == m.pid() || s.OnCrash != "reissue" {
		t.Fatalf("served by process %d of supervisor %d, on crash %s", s.PID, m.pid(), s.OnCrash)
	}
	p := b.pulse(s)
	// SIGABRT ends a Go program in the same way as a panic.
	for _, how := range []unix.Signal{unix.SIGKILL, unix.SIGABRT, unix.SIGKILL, unix.SIGABRT, unix.SIGKILL} {
		was := b.list()[0].PID
		if err := unix.Kill(was, how); err != nil {
			t.Fatal(err)
		}
		waitUntil(t, "another serves", func() bool {
			now := b.list()
			return len(now) == 1 && now[0].State == "live" && now[0].PID != was && now[0].PID != 0
		})
		blocks := p.blocks.Load()
		waitUntil(t, "I/O goes on", func() bool { return p.blocks.Load() > blocks+2 })
	}
	b.end(p)
	m.stop()
	if list := b.list(); len(list) != 0 {
		t.Errorf("after the end of the server: %+v", list)
	}
}

// After an upgrade, the successor of a killed server runs the program of the upgrade, even
// if the path leads to another program by then. Without an upgrade, a newly installed
// program is not used.
func TestKernelSuperviseUpgraded(t *testing.T) {
	b := kernelBed(t)
	path := filepath.Join(t.TempDir(), "ublk-loop")
	install := func(from string) os.FileInfo {
		b.tool("cp", from, path+".new")
		b.tool("mv", path+".new", path)
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return info
	}
	installed, first := b.bin, install(b.bin)
	b.bin = path
	m := b.serve("--supervise")
	p := b.pulse(b.add(b.image(1 << 20)))
	runs := func(what string, want os.FileInfo) {
		t.Helper()
		pid := b.list()[0].PID
		is, err := os.Stat(fmt.Sprintf("/proc/%d/exe", pid))
		if err != nil || !os.SameFile(is, want) {
			t.Errorf("%s, the server does not run the program that it should, error %v", what, err)
		}
	}
	killed := func() {
		t.Helper()
		was := b.list()[0].PID
		if err := unix.Kill(was, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		waitUntil(t, "another serves", func() bool {
			now := b.list()
			return len(now) == 1 && now[0].State == "live" && now[0].PID != was && now[0].PID != 0
		})
	}
	runs("at first", first)
	second := install(installed)
	killed()
	runs("after a crash without an upgrade", first)
	b.ok("upgrade")
	runs("after the upgrade", second)
	install("/bin/true")
	b.bin = installed
	killed()
	runs("after a crash", second)
	b.end(p)
	m.stop()
}

// servePrivileges are the capabilities of serve (docs/design.md).
const servePrivileges = 1<<unix.CAP_SYS_ADMIN | 1<<unix.CAP_IPC_LOCK | 1<<unix.CAP_DAC_OVERRIDE | 1<<unix.CAP_KILL |
	1<<unix.CAP_SETUID | 1<<unix.CAP_SETGID | 1<<unix.CAP_SETPCAP

// The supervisor has the privileges that its server has, and no others, and is protected like a server.
func TestKernelSupervisorConfined(t *testing.T) {
	b := kernelBed(t)
	dir := t.TempDir()
	b.tool("mount", "-t", "tmpfs", "none", dir)
	m := b.serve("--supervise")
	defer m.stop()
	b.tool("umount", dir) // neither a server nor its supervisor may keep a mount of its devices
	s := b.add(b.image(1 << 20))
	server, supervisor := b.portray(s.PID), b.portray(m.pid())
	want := portrait{"NoNewPrivs": "1"}
	for _, name := range []string{"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"} {
		want[name] = fmt.Sprintf("%016x", servePrivileges)
	}
	for name, w := range want {
		if supervisor[name] != w || server[name] != w {
			t.Errorf("%s of the supervisor is %s, of the server %s, want %s", name, supervisor[name], server[name], w)
		}
	}
	if mounts := b.readFile(fmt.Sprintf("/proc/%d/mountinfo", m.pid())); strings.Contains(mounts, dir) {
		t.Errorf("the supervisor has the mounts\n%s", mounts)
	}
	b.checkProtected(m.pid())
	b.checkProtected(s.PID)
	b.del(s.Device)
}

// A supervisor restarts its server also if nothing reads their standard error.
func TestKernelSuperviseWithoutReader(t *testing.T) {
	b := kernelBed(t)
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	m := b.serveTo(writer, "--supervise")
	defer m.stop()
	if err := errors.Join(reader.Close(), writer.Close()); err != nil {
		t.Fatal(err)
	}
	s := b.add(b.image(1 << 20))
	if err := unix.Kill(s.PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, "another serves", func() bool {
		now := b.list()
		return len(now) == 1 && now[0].State == "live" && now[0].PID != s.PID && now[0].PID != 0
	})
	b.works(s)
	b.del(s.Device)
}
