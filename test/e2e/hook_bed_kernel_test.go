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

// hooked are settings of a test with hooks, whose runtime nothing stands in front of.
const hooked = `attach_timeout = "20s"`

// byHooks makes such a test of one.
func byHooks(test func(*wrapped)) func(*wrapped) {
	return func(w *wrapped) {
		w.Helper()
		w.runtime = w.real
		test(w)
		w.hookDirs(0)
	}
}

// precreateCommand returns the hook's call for a bundle, as an engine does it:
// with nothing in the environment.
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

// precreate has a bundle go through the hook.
func (w *wrapped) precreate(bundle string) {
	w.Helper()
	r := w.runCommand(w.precreateCommand(bundle))
	r.succeeds(w)
	w.write(filepath.Join(bundle, "config.json"), r.out, 0o600)
}

// hookDirs are the directories in which the hooks have something mounted, or had.
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

// sweepAll takes what the hooks have left.
func (w *wrapped) sweepAll() {
	w.Helper()
	w.ok("hook", "sweep", "--older-than", "0s")
}

// inUserNamespace gives a bundle's container one, whose root is 100000 here.
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

// userNamespace makes one, until the end of the test, and returns where it is.
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

// joinsUserNamespace has a bundle's container be in one that there is, as podman
// writes it down, which does not know whom it has for root.
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

// hookLog is the system's, in which hooks say why they have failed.
type hookLog struct {
	testing.TB
	socket *net.UnixConn
}

// systemLog is in syslogd's place. If the test fails it prints what comes.
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

// line waits for a line of the hooks: podman's monitor has others.
func (l *hookLog) line() string {
	l.Helper()
	for {
		switch line := l.next(10 * time.Second); {
		case line == "":
			l.Error("nothing is in the log")
			return ""
		case strings.Contains(line, " ublk-loop["):
			return line
		}
	}
}

// next returns a line that comes within some time, "" for none.
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
