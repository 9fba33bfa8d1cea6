package vmtest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The demo of many containers fails if one of them leaves something.
func TestLongDemoSandboxes(t *testing.T) {
	cachedKernel(t)
	dir := t.TempDir()
	if out, err := exec.Command("make", "-s", "-C", "../..", "build", "BIN="+dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	text, err := os.ReadFile("../demo-sandboxes-guest.sh")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, line, instead, want string }{
		{"nothing", "", "", "no device, mount, container or cgroup is left"},
		{"a second device", `ublk-loop del "${others[@]}"`, "", "error: devices are left: "},
		{"a mount", "umount other", "umount other; mount --bind /bin other; mount -t tmpfs ublkb other", "error: left behind: ublkb"},
		{"a cgroup", "\ncheck_nothing_left\n", "\nmkdir /sys/fs/cgroup/sandbox1\ncheck_nothing_left\n", "error: left behind: /sys/fs/cgroup/sandbox1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if !strings.Contains(string(text), c.line) {
				t.Fatalf("the script lacks %q", c.line)
			}
			script := filepath.Join(dir, "demo.sh")
			if err := os.WriteFile(script, []byte(strings.Replace(string(text), c.line, c.instead, 1)), 0o700); err != nil {
				t.Fatal(err)
			}
			out, err := exec.Command("../vm.sh", "run", "uml", "--disk", "1G", "--file", dir+"/ublk-loop:/usr/bin/ublk-loop", "--file", script,
				"--", "env", "DEMO_DISK=/dev/vda", "bash", "/vm/files/demo.sh", "3", "crun").CombinedOutput()
			if !strings.Contains(string(out), c.want) || (err == nil) != (c.line == "") {
				t.Errorf("error %v, want %q in\n%s", err, c.want, out)
			}
		})
	}
}
