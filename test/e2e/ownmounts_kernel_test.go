package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
)

// A server has the files of its devices by its own mounts, also if a client had other mounts of the same file
// systems. Therefore umount(8) sees that the files are in use when the client and its mounts have ended.
func TestKernelOwnMounts(t *testing.T) {
	b := kernelBed(t)
	dir := t.TempDir()
	b.tool("mount", "-t", "tmpfs", "none", dir)
	defer b.tool("umount", dir)
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, 1<<20); err != nil {
		t.Fatal(err)
	}
	table := filepath.Join(t.TempDir(), "table")
	if err := os.WriteFile(table, fmt.Appendf(nil, "0 2048 linear %s 0\n", file), 0o600); err != nil {
		t.Fatal(err)
	}
	b.serve()
	for _, propagation := range []string{"slave", "private"} {
		for _, args := range [][]string{{file}, {"--read-only", file}, {"--table", table}} {
			s := b.addUnshared(propagation, "", args...)
			if _, err := os.ReadFile(s.Device); err != nil {
				t.Error(err)
			}
			if out, err := exec.Command("umount", dir).CombinedOutput(); err == nil || !strings.Contains(string(out), "busy") {
				t.Fatalf("%s, add %q: umount of the file's mount: %q, error %v", propagation, args, out, err)
			}
			b.del(s.Device)
		}
	}
}

// A client's mounts may refuse writes that the server's mounts allow.
func TestKernelOwnMountsReadOnly(t *testing.T) {
	b := kernelBed(t)
	file := b.image(1 << 20)
	b.serve()
	script := fmt.Sprintf("mount --bind -o ro %s %[1]s &&", filepath.Dir(file))
	r := b.runCommand(b.unshared("private", script, file))
	if !strings.Contains(r.err, "read-only file system") {
		t.Errorf("a device whose file is read-only for the client: %+v", r)
	}
	b.del(b.addUnshared("private", script, "--read-only", file).Device)
}

// The server's mounts may refuse writes that a client's mounts allow.
func TestKernelOwnMountsWritable(t *testing.T) {
	b := kernelBed(t)
	file := b.image(1 << 20)
	dir := filepath.Dir(file)
	b.tool("mount", "--bind", "-o", "ro", dir, dir)
	defer b.tool("umount", dir)
	b.serve()
	s := b.addUnshared("private", fmt.Sprintf("mount -o remount,bind,rw %s &&", dir), file)
	if err := os.WriteFile(s.Device, []byte("content"), 0); err != nil {
		t.Error(err)
	}
	b.del(s.Device)
}

// A file system that the server has at the path of a client's file need not answer.
func TestKernelOwnMountsUnanswered(t *testing.T) {
	b := kernelBed(t)
	silent := b.userFile()
	dir := filepath.Dir(silent.path)
	b.serve()
	silent.signal(unix.SIGSTOP)
	defer silent.signal(unix.SIGCONT)
	s := b.addUnshared("private", fmt.Sprintf("mount -t tmpfs none %s && truncate -s 1M %s &&", dir, silent.path), "--on-crash=reissue", silent.path)
	b.ok("upgrade")
	b.del(s.Device)
}

// Two files of a file system may have the same inode number.
func TestKernelOwnMountsTwin(t *testing.T) {
	b := kernelBed(t)
	file := b.userFile().path
	b.serve()
	twin := filepath.Join(filepath.Dir(file), "twin")
	s := b.addUnshared("private", fmt.Sprintf("mount --bind %s %s &&", twin, file), file)
	if got, err := os.ReadFile(s.Device); err != nil || !strings.HasPrefix(string(got), "twin") {
		t.Errorf("the device begins with %.4q, error %v", got, err)
	}
	b.del(s.Device)
}

// unshared returns a command that runs add in a mount namespace of its own, after other commands.
func (b *bed) unshared(propagation, before string, args ...string) *exec.Cmd {
	script := before + ` exec "$0" add --json "$@"`
	return exec.Command("unshare", append([]string{"--mount", "--propagation", propagation, "sh", "-c", script, b.bin}, args...)...)
}

func (b *bed) addUnshared(propagation, before string, args ...string) client.Device {
	b.Helper()
	r := b.runCommand(b.unshared(propagation, before, args...))
	var s client.Device
	if err := json.Unmarshal([]byte(r.out), &s); err != nil {
		b.Fatalf("add %q: %+v: %v", args, r, err)
	}
	return s
}
