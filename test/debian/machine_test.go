package debian

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// machine is a Debian on a disk image. The image keeps what a boot has changed.
type machine struct {
	testing.TB
	kernel string   // directory of the user-mode kernel
	tree   string   // directory that becomes the disk
	disk   string   // the disk, once there is one
	boots  []string // parameters of the kernel that find the root file system
}

// report is what a boot has said.
type report struct {
	out     string // of the script
	console string // of the kernel and systemd
	took    time.Duration
}

// bootLimit bounds a boot with its script and its shutdown, which take seconds.
const bootLimit = 5 * time.Minute

// scriptUnit runs the test's script as the last part of the boot. The serial line is a file of
// the test.
const scriptUnit = `[Unit]
Description=Script of the test
After=multi-user.target
[Service]
Type=oneshot
ExecStartPre=/bin/stty -F /dev/ttyS0 raw -echo
ExecStart=/bin/sh -c '/bin/bash /test/script; echo "exit $?"; systemctl --no-block $(cat /test/ending 2>/dev/null || echo poweroff) >/dev/null 2>&1'
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS0
WorkingDirectory=/test
Environment=HOME=/root
[Install]
WantedBy=multi-user.target
`

// newMachine returns a machine that has not booted yet, with a Debian release and further packages
// of it.
func newMachine(t testing.TB, suite string, packages ...string) *machine {
	t.Helper()
	ublktest.NeedsOtherUsers(t) // files of a Debian have several owners
	if isUnit() && exec.Command("../../scripts/vm-kernel.sh", "--cached", "uml").Run() != nil {
		t.Skip("the user-mode kernel is not built: scripts/vm-kernel.sh uml builds it, which takes minutes")
	}
	m := &machine{TB: t, tree: filepath.Join(t.TempDir(), "tree"), boots: []string{"root=/dev/ubda", "rw", "init=/lib/systemd/systemd"}}
	m.kernel = m.run("../../scripts/vm-kernel.sh", "uml")
	if err := os.Mkdir(m.tree, 0o755); err != nil {
		t.Fatal(err)
	}
	// /dev is the kernel's.
	m.run("tar", "-C", m.tree, "--exclude=./dev/*", "-xf", m.run("../../scripts/vm-debian.sh", append([]string{suite}, packages...)...))
	m.run("cp", "-r", filepath.Join(m.kernel, "lib/modules"), m.tree+"/usr/lib/")
	m.write("/etc/systemd/system/script.service", 0o644, scriptUnit)
	m.link("/etc/systemd/system/multi-user.target.wants/script.service", "../script.service")
	for _, unit := range []string{"getty.target", "getty-static.service", "getty@tty1.service", "ldconfig.service"} {
		m.link("/etc/systemd/system/"+unit, "/dev/null") // they only take time
	}
	m.write("/etc/hostname", 0o644, "debian\n")
	m.write("/etc/machine-id", 0o444, strings.Repeat("0123456789abcdef", 2)+"\n") // no first boot
	return m
}

// run runs a program of the host, and returns its output without the last line feed.
func (m *machine) run(name string, args ...string) string {
	m.Helper()
	cmd := exec.Command(name, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		m.Fatalf("%s %q: %v\n%s%s", name, args, err, out, stderr.String())
	}
	return strings.TrimSpace(string(out))
}

// write makes a file of the machine, before its first boot.
func (m *machine) write(path string, mode os.FileMode, text string) {
	m.Helper()
	full := m.tree + path
	_ = os.Remove(full)
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		m.Fatal(err)
	}
	if err := os.WriteFile(full, []byte(text), mode); err != nil {
		m.Fatal(err)
	}
}

func (m *machine) link(path, target string) {
	m.Helper()
	_ = os.Remove(m.tree + path)
	if err := os.Symlink(target, m.tree+path); err != nil {
		m.Fatal(err)
	}
}

// copy copies a file of the host to the machine, before its first boot.
func (m *machine) copy(host, path string) {
	m.Helper()
	if err := os.MkdirAll(filepath.Dir(m.tree+path), 0o755); err != nil {
		m.Fatal(err)
	}
	m.run("cp", host, m.tree+path)
}

// makeDisk makes the disk of the machine's files.
func (m *machine) makeDisk() {
	m.Helper()
	if m.disk != "" {
		return
	}
	m.disk = filepath.Join(m.TempDir(), "disk")
	m.run("truncate", "-s", "1200M", m.disk)
	m.run("mke2fs", "-q", "-t", "ext4", "-d", m.tree, m.disk)
	m.run("rm", "-rf", m.tree)
}

// script replaces the script for the next boot.
func (m *machine) script(text string) {
	m.Helper()
	if m.disk == "" {
		m.write("/test/script", 0o755, text)
		return
	}
	file := filepath.Join(m.TempDir(), "script")
	if err := os.WriteFile(file, []byte(text), 0o755); err != nil {
		m.Fatal(err)
	}
	m.debugfs("-w", "rm /test/script")
	m.debugfs("-w", "write "+file+" /test/script")
}

// debugfs carries out a command on the disk of a machine that is switched off.
func (m *machine) debugfs(args ...string) string {
	m.Helper()
	last := len(args) - 1
	return m.run("debugfs", append(append([]string{}, args[:last]...), "-R", args[last], m.disk)...)
}

// boot runs the machine until it switches itself off. It fails the test if the script fails.
func (m *machine) boot(script string) *report {
	m.Helper()
	m.script(script)
	m.makeDisk()
	return m.start()
}

// start runs the machine with the script that it has.
func (m *machine) start() *report {
	m.Helper()
	dir := m.TempDir()
	ctx, cancel := context.WithTimeout(context.Background(), bootLimit)
	defer cancel()
	args := append([]string{
		"mem=1024M", "ubd0=" + m.disk, "uml_dir=" + dir + "/", "stderr=1", "console=tty0", "con=null", "con0=null,fd:2", "ssl=null",
		"ssl0=null,fd:1", "panic=-1", "noreboot", "seccomp=auto", "systemd.show_status=yes",
		"systemd.journald.forward_to_console=0", "SYSTEMD_COLORS=0",
	}, m.boots...)
	cmd := exec.CommandContext(ctx, m.kernel+"/linux", args...)
	out, console := &bytes.Buffer{}, &bytes.Buffer{}
	r := &report{}
	started := time.Now()
	err := runWithFiles(cmd, dir, out, console)
	r.took, r.out, r.console = time.Since(started), out.String(), console.String()
	text, ok := strings.CutSuffix(r.out, "exit 0\n")
	if r.out = text; err != nil || !ok {
		m.Fatalf("the machine ended with %v after %v\nscript:\n%s\nconsole:\n%s", err, r.took, text, tail(r.console, 120))
	}
	return r
}

// runWithFiles runs a command whose outputs are files, because the kernel sets what is not a file to
// other modes.
func runWithFiles(cmd *exec.Cmd, dir string, out, errOut io.Writer) error {
	var files []*os.File
	for i, name := range []string{"out", "console"} {
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		files = append(files, f)
		if i == 0 {
			cmd.Stdout = f
		} else {
			cmd.Stderr = f
		}
	}
	err := cmd.Run()
	for i, w := range []io.Writer{out, errOut} {
		if _, seekErr := files[i].Seek(0, io.SeekStart); seekErr != nil {
			return seekErr
		}
		if _, copyErr := io.Copy(w, files[i]); copyErr != nil {
			return copyErr
		}
	}
	return err
}

// tail returns the last lines of a text.
func tail(text string, lines int) string {
	all := strings.SplitAfter(text, "\n")
	return strings.Join(all[max(0, len(all)-lines):], "")
}

// top is the directory of the source.
func top(t testing.TB) string {
	t.Helper()
	path, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// isFull reports whether the full run of the tests runs this one.
func isFull() bool { return os.Getenv("UBLK_LOOP_TIER") == "full" }

// isUnit reports whether a run that needs no kernel runs this test.
func isUnit() bool { return os.Getenv("UBLK_LOOP_TIER") == "unit" }

// needProgram skips a test if a program of the host is missing. The full run fails then.
func needProgram(t testing.TB, name, debianPackage string) {
	t.Helper()
	_, err := exec.LookPath(name)
	switch {
	case err != nil && isFull():
		t.Fatalf("needs %s (Debian package %s)", name, debianPackage)
	case err != nil:
		t.Skipf("needs %s (Debian package %s)", name, debianPackage)
	}
}
