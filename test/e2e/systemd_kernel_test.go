package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/cmd/ublk-loop/systemd"
	"github.com/ublk-loop/ublk-loop/internal/oci"
	"github.com/ublk-loop/ublk-loop/loop"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// manager is systemd, as the first process of a pid namespace.
type manager struct {
	b    *bed
	cmd  *exec.Cmd
	root string // directory of the units
	pid  int    // pid of systemd
}

const systemdPath = "/lib/systemd/systemd"

// startSystemd starts systemd with ublk-loop's units, and waits until it answers.
func (b *bed) startSystemd() *manager {
	b.Helper()
	m := &manager{b: b, root: b.TempDir()}
	m.writeUnits()
	m.cmd = exec.Command("unshare", "--fork", "--kill-child", "--pid", "--mount", "--mount-proc",
		systemdPath, "--system", "--unit=test.target", "--log-target=console", "--show-status=no")
	m.cmd.Env = []string{"container=test", "SYSTEMD_UNIT_PATH=" + m.root, "PATH=" + os.Getenv("PATH")}
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := m.cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = m.cmd.Process.Kill() // also kills all processes that it has started
		_ = m.cmd.Wait()
		if b.Failed() {
			text, _ := os.ReadFile(filepath.Join(m.root, "service.log"))
			ublktest.Detail(b, "%s", text)
		}
		for _, path := range []string{client.DefaultSocket, client.DefaultSocket + ".lock"} {
			_ = os.Remove(path)
		}
	})
	waitUntil(b, "systemd answers", func() bool {
		m.pid = m.outside("1")
		return m.pid != 0 && m.systemctl("is-active", "test.target").Run() == nil
	})
	return m
}

// systemctl returns a call of systemctl inside systemd's namespaces, because systemd does
// not answer a process that it cannot see.
func (m *manager) systemctl(args ...string) *exec.Cmd {
	return exec.Command("nsenter", append([]string{"--target", strconv.Itoa(m.pid), "--pid", "--mount", "systemctl"}, args...)...)
}

// writeUnits writes ublk-loop's units with the path of the binary and short times, and
// the units that they depend on.
func (m *manager) writeUnits() {
	m.b.Helper()
	files := map[string]string{}
	units, err := systemd.Units.ReadDir(".")
	if err != nil {
		m.b.Fatal(err)
	}
	for _, unit := range units {
		text, err := systemd.Units.ReadFile(unit.Name())
		if err != nil {
			m.b.Fatal(err)
		}
		files[unit.Name()] = strings.ReplaceAll(string(text), "/usr/bin/ublk-loop", m.b.bin)
	}
	for _, target := range []string{"test", "sysinit", "basic", "sockets", "timers", "shutdown", "multi-user"} {
		files[target+".target"] = "[Unit]\nDefaultDependencies=no\n"
	}
	files["ublk-loop.service.d/test.conf"] = fmt.Sprintf("[Service]\nWatchdogSec=10s\nStandardError=append:%s/service.log\n", m.root)
	for name, text := range files {
		path := filepath.Join(m.root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			m.b.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			m.b.Fatal(err)
		}
	}
}

func (m *manager) ctl(args ...string) string {
	m.b.Helper()
	out, err := m.systemctl(args...).CombinedOutput()
	if err != nil {
		m.b.Fatalf("systemctl %q: %v\n%s", args, err, out)
	}
	return string(out)
}

// property returns a property of the service.
func (m *manager) property(name string) string {
	m.b.Helper()
	return m.propertyOf("ublk-loop.service", name)
}

func (m *manager) propertyOf(unit, name string) string {
	m.b.Helper()
	return strings.TrimSpace(m.ctl("show", "--property="+name, "--value", unit))
}

// mainPID returns the pid of the service, or 0.
func (m *manager) mainPID() int {
	m.b.Helper()
	return m.outside(m.property("MainPID"))
}

// outside returns the pid outside of systemd's namespace for a pid inside, or 0.
func (m *manager) outside(inside string) int {
	m.b.Helper()
	paths, err := filepath.Glob("/proc/[0-9]*/status")
	if err != nil {
		m.b.Fatal(err)
	}
	for _, path := range paths {
		status, _ := os.ReadFile(path) // nothing if the process has ended
		for line := range strings.Lines(string(status)) {
			pids, found := strings.CutPrefix(line, "NSpid:")
			if f := strings.Fields(pids); found && len(f) == 2 && f[1] == inside {
				pid, err := strconv.Atoi(f[0])
				if err != nil {
					m.b.Fatal(err)
				}
				return pid
			}
		}
	}
	return 0
}

func (m *manager) signal(s unix.Signal) {
	m.b.Helper()
	if err := unix.Kill(m.mainPID(), s); err != nil {
		m.b.Fatal(err)
	}
}

// sweeps checks that the sweeper's timer removes what a hook has left.
func (m *manager) sweeps() {
	m.b.Helper()
	dir := filepath.Join(hooksMount, fmt.Sprintf("%016x-%s", 1, strings.Repeat("A", 26)))
	for _, d := range []string{dir, filepath.Dir(oci.SettingsPath)} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			m.b.Fatal(err)
		}
	}
	if err := os.WriteFile(oci.SettingsPath, []byte(`sweep_after = "1ms"`), 0o644); err != nil {
		m.b.Fatal(err)
	}
	defer func() { _ = os.Remove(oci.SettingsPath) }()
	m.ctl("start", "ublk-loop-sweep.timer", "ublk-loop-sweep.service")
	if _, err := os.Lstat(dir); err == nil {
		m.b.Errorf("%s is still there", dir)
	}
}

// With the shipped units, the socket starts the service. systemd restarts the service
// when it was killed, stopped or restarted, and a reload replaces its program. I/O
// continues in all cases.
func TestKernelSystemd(t *testing.T) {
	b := kernelBed(t, ublktest.Own, ublktest.Systemd)
	m := b.startSystemd()
	m.ctl("start", "ublk-loop.socket")
	if st, err := os.Stat(client.DefaultSocket); err != nil || st.Mode().Perm() != 0o600 {
		t.Fatalf("the socket: %v, error %v", st, err)
	}
	if m.mainPID() != 0 {
		t.Fatal("the service runs before anybody wants it")
	}
	m.sweeps()
	s := b.add(b.image(1 << 20))
	if s.OnCrash != string(loop.CrashReissue) {
		t.Errorf("on crash %s, want reissue", s.OnCrash)
	}
	first := m.mainPID()
	for range 2 { // the start itself is the first
		told := m.property("WatchdogTimestampMonotonic")
		waitUntil(t, "the watchdog is told", func() bool { return m.property("WatchdogTimestampMonotonic") != told })
	}
	if now := m.mainPID(); now != first {
		t.Errorf("the watchdog has ended process %d, there is %d", first, now)
	}
	p := b.pulse(s)
	for _, step := range []struct {
		name string
		do   func()
		same bool // the pid does not change
	}{
		{"killed", func() { m.signal(unix.SIGKILL) }, false},
		{"reloaded", func() { m.ctl("reload", "ublk-loop.service") }, true},
		{"restarted", func() { m.ctl("restart", "ublk-loop.service") }, false},
		{"stopped, so that the watchdog bites", func() { m.signal(unix.SIGSTOP) }, false},
	} {
		was := m.mainPID()
		step.do()
		waitUntil(t, step.name+": the service is there", func() bool {
			now := m.mainPID()
			return now != 0 && (now == was) == step.same &&
				m.property("SubState") == "running"
		})
		blocks := p.blocks.Load()
		waitUntil(t, step.name+": I/O goes on", func() bool { return p.blocks.Load() > blocks+2 })
	}
	var server client.ServerStatus
	out, err := exec.Command("curl", "-sSf", "--unix-socket", client.DefaultSocket, "http://x/v1/server").Output()
	if err != nil || json.Unmarshal(out, &server) != nil || server.Devices != 1 {
		t.Errorf("the server: %+v, error %v", server, err)
	}
	b.end(p)
	t.Logf("the longest write and read: %v", time.Duration(p.longest.Load()))
	m.ctl("stop", "ublk-loop.service", "ublk-loop.socket")
	b.isGone(s)
}

// Without the driver, systemd starts the service only now and then. A client that waits meanwhile gets its answer when
// there is the driver.
func TestKernelSystemdWithoutDriver(t *testing.T) {
	const control = "/dev/ublk-control"
	b := kernelBed(t, ublktest.Own, ublktest.Systemd, ublktest.Once)
	m := b.startSystemd()
	var st unix.Stat_t
	if err := unix.Stat(control, &st); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(control); err != nil {
		t.Fatal(err)
	}
	restore := func() error { return unix.Mknod(control, st.Mode, int(st.Rdev)) }
	t.Cleanup(func() { _ = restore() }) // fails if it is there
	start := time.Now()
	m.ctl("start", "ublk-loop.socket")
	answered := make(chan error, 1)
	go func() {
		answered <- exec.Command("curl", "-sSf", "--unix-socket", client.DefaultSocket, "http://x/v1/server").Run()
	}()
	waitUntil(t, "the service was started again", func() bool { return m.property("NRestarts") == "2" })
	if took := time.Since(start); took < 10*time.Second {
		t.Errorf("the service has failed twice within %s", took)
	}
	if err := restore(); err != nil {
		t.Fatal(err)
	}
	if err := <-answered; err != nil {
		t.Errorf("the client: %v", err)
	}
	m.ctl("stop", "ublk-loop.service", "ublk-loop.socket")
}

// The snapshotter's unit starts the server's socket, becomes ready, and is restarted when
// it is killed.
func TestKernelSystemdSnapshotter(t *testing.T) {
	b := kernelBed(t, ublktest.Own, ublktest.Snapshotter, ublktest.Systemd, ublktest.Once)
	m := b.startSystemd()
	const unit, socket, state = "ublk-loop-snapshotter.service", "/run/ublk-loop/snapshotter.sock", "/var/lib/ublk-loop/snapshotter"
	t.Cleanup(func() {
		_ = os.Remove(socket)
		_ = os.RemoveAll(state)
	})
	m.ctl("start", unit)
	for _, path := range []string{client.DefaultSocket, socket} {
		if st, err := os.Stat(path); err != nil || st.Mode() != os.ModeSocket|0o600 {
			t.Errorf("%s: %v, error %v", path, st, err)
		}
	}
	if st, err := os.Stat(state); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("%s: %v, error %v", state, st, err)
	}
	was := m.propertyOf(unit, "MainPID")
	if err := unix.Kill(m.outside(was), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, "the snapshotter is there again", func() bool {
		return m.propertyOf(unit, "SubState") == "running" && m.propertyOf(unit, "MainPID") != was
	})
	if conn, err := net.Dial("unix", socket); err != nil {
		t.Error(err)
	} else {
		_ = conn.Close()
	}
	m.ctl("stop", unit, "ublk-loop.service", "ublk-loop.socket")
}
