package e2e

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// hooked is the settings of a test that uses hooks, and therefore calls the runtime
// directly.
const hooked = `attach_timeout = "20s"`

// byHooks adapts a test to hooks.
func byHooks(test func(*wrapped)) func(*wrapped) {
	return func(w *wrapped) {
		w.Helper()
		w.runtime = w.real
		test(w)
		w.hookDirs(0)
	}
}

// precreateCommand returns the call of the hook precreate for a bundle. As in an engine,
// the environment is empty.
func (w *wrapped) precreateCommand(bundle string) *exec.Cmd {
	w.Helper()
	text, err := os.ReadFile(filepath.Join(bundle, "config.json"))
	if err != nil {
		w.Fatal(err)
	}
	cmd := w.command("hook", "precreate")
	cmd.Env, cmd.Dir = []string{}, "/"
	cmd.Stdin = bytes.NewReader(text)
	return cmd
}

// precreate applies the hook precreate to a bundle.
func (w *wrapped) precreate(bundle string) {
	w.Helper()
	r := w.runCommand(w.precreateCommand(bundle))
	r.succeeds(w)
	w.write(filepath.Join(bundle, "config.json"), r.out, 0o600)
}

// hookDirs returns the directories of the hooks' mounts, which must be as many as wanted.
func (w *wrapped) hookDirs(want int) []string {
	w.Helper()
	dirs, err := filepath.Glob(hooksMount + "/*")
	if err != nil || len(dirs) != want {
		w.Fatalf("the hooks have %q, error %v; want %d", dirs, err, want)
	}
	return dirs
}

// nothingHooked also checks that no directory of the hooks is left.
func (w *wrapped) nothingHooked() {
	w.Helper()
	w.hookDirs(0)
	w.nothingLeft()
}

// hookMounts counts the hooks' mounts in this namespace.
func (w *wrapped) hookMounts() int {
	n := 0
	for _, path := range hostMounts(w) {
		if strings.HasPrefix(path, hooksMount+"/") {
			n++
		}
	}
	return n
}

// sweepAll removes all that the hooks have left.
func (w *wrapped) sweepAll() {
	w.Helper()
	w.ok("hook", "sweep", "--older-than", "0s")
}

// inUserNamespace gives a bundle's container a user namespace, whose root is the host's
// user 100000.
func (w *wrapped) inUserNamespace(bundle string) {
	w.Helper()
	w.editBundle(bundle, func(config map[string]any) {
		linux, _ := config["linux"].(map[string]any)
		ids := []map[string]any{{"containerID": 0, "hostID": 100000, "size": 65536}}
		linux["uidMappings"], linux["gidMappings"] = ids, ids
		namespaces, _ := linux["namespaces"].([]any)
		linux["namespaces"] = append(namespaces, map[string]any{"type": "user"})
	})
}

// userNamespace makes a user namespace that lasts until the end of the test, and returns
// its path.
func (w *wrapped) userNamespace() string {
	w.Helper()
	cmd := exec.Command("cat")
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 100000, Size: 65536}}
	cmd.SysProcAttr = &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER, UidMappings: ids, GidMappings: ids}
	in, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})
	return fmt.Sprintf("/proc/%d/ns/user", cmd.Process.Pid)
}

// joinsUserNamespace makes a bundle's container join an existing user namespace. It uses
// podman's form of the configuration, which does not contain the real mapping.
func (w *wrapped) joinsUserNamespace(bundle, path string) {
	w.Helper()
	w.editBundle(bundle, func(config map[string]any) {
		linux, _ := config["linux"].(map[string]any)
		ids := []map[string]any{{"containerID": 0, "hostID": 0, "size": 1}}
		linux["uidMappings"], linux["gidMappings"] = ids, ids
		namespaces, _ := linux["namespaces"].([]any)
		linux["namespaces"] = append(namespaces, map[string]any{"type": "user", "path": path})
	})
}

// hookLog is the system log, to which hooks write their errors.
type hookLog struct {
	testing.TB
	socket *net.UnixConn
}

// systemLog replaces syslogd. If the test fails, it prints all lines.
func systemLog(t testing.TB) *hookLog {
	t.Helper()
	const path = "/dev/log"
	if _, err := os.Lstat(path); err == nil {
		t.Skip(path + " is there")
	}
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	l := &hookLog{t, socket}
	t.Cleanup(func() {
		for t.Failed() {
			line := l.next(0)
			if line == "" {
				break
			}
			ublktest.Detail(t, "system log: %s", line)
		}
		_ = socket.Close()
		_ = os.Remove(path)
	})
	return l
}

// line waits for a line of the hooks, and skips those of podman's monitor.
func (l *hookLog) line() string {
	l.Helper()
	for {
		switch line := l.next(waitLimit); {
		case line == "":
			ublktest.TimedOut(l, waitLimit, "a line of the hooks in the system log")
		case strings.Contains(line, " ublk-loop["):
			return line
		}
	}
}

// next returns the next line, or "" if none comes within d.
func (l *hookLog) next(d time.Duration) string {
	line := make([]byte, 4096)
	if err := l.socket.SetReadDeadline(time.Now().Add(d + time.Millisecond)); err != nil {
		l.Fatal(err)
	}
	n, err := l.socket.Read(line)
	if err != nil {
		return ""
	}
	return string(line[:n])
}
