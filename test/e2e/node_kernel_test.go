package e2e

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// The name of a new device may belong to a file, for example of a program that wrote to a device that
// was gone, or to the node of another disk. add must not print a name that leads there, and leaves nothing.
func TestKernelNodeTaken(t *testing.T) {
	b := kernelBed(t, ublktest.Once, ublktest.Waits)
	const node = "/dev/ublkb77"
	file := b.image(1 << 20)
	for what, occupy := range map[string]func() error{
		"another file has the name": func() error { return os.WriteFile(node, []byte("x"), 0o600) },
		"belongs to another device": func() error { return unix.Mknod(node, unix.S_IFBLK|0o600, int(unix.Mkdev(259, 77777))) },
	} {
		if err := occupy(); err != nil {
			t.Fatal(err)
		}
		for _, args := range [][]string{{"add", "--id=77", file}, {"add", "--id=77", "--partscan", file}} {
			b.run(args...).fails(t, 1, what, "hint: remove the file: rm "+node)
			if list := b.list(); len(list) > 0 {
				t.Fatalf("%v leaves %+v", args, list)
			}
		}
		if err := os.Remove(node); err != nil {
			t.Fatal(err)
		}
	}
	b.del(b.add("--id=77", file).Device)
}

// A mounted device whose name was removed, or leads elsewhere, is in use all the same: del refuses it, and SIGTERM does not end
// its server. Before Linux 7.0 the driver does not know whether a device is open.
func TestKernelMountedWithoutNode(t *testing.T) {
	b := kernelBed(t, ublktest.OldestKernel)
	for what, occupy := range map[string]func(node string) error{
		"nothing":               func(string) error { return nil },
		"a file":                func(node string) error { return os.WriteFile(node, nil, 0o600) },
		"another disk":          func(node string) error { return unix.Mknod(node, unix.S_IFBLK|0o600, int(unix.Mkdev(259, 77777))) },
		"a character device":    func(node string) error { return unix.Mknod(node, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))) },
		"a link that is a loop": func(node string) error { return os.Symlink(node, node) },
	} {
		t.Run(what, func(t *testing.T) { b.in(t).mountedWithoutNode(occupy) })
	}
}

func (b *bed) mountedWithoutNode(occupy func(node string) error) {
	b.Helper()
	file, log := b.image(16<<20), filepath.Join(b.TempDir(), "log")
	s := b.add("--standalone", "--log-file="+log, file)
	b.tool("mkfs.ext4", "-q", s.Device)
	dir := b.TempDir()
	b.tool("mount", s.Device, dir)
	defer func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }()
	if err := errors.Join(os.Remove(s.Device), occupy(s.Device)); err != nil {
		b.Fatal(err)
	}
	defer func() { _ = os.Remove(s.Device) }() // fails if nothing took its place
	b.run("del", file).fails(b, 1, s.Device, "in use", "hint: --force")
	if err := unix.Kill(s.PID, unix.SIGTERM); err != nil {
		b.Error(err)
	}
	waitUntil(b.TB, "SIGTERM is refused", func() bool {
		text, err := os.ReadFile(log)
		return err == nil && strings.Contains(string(text), "SIGTERM is refused") || len(servers(b)) == 0
	})
	if list := b.list(); len(list) != 1 || list[0].PID != s.PID {
		b.Fatalf("after del and SIGTERM: %+v", list)
	}
	left, err := filepath.Glob("/dev/.ublk-loop*")
	if err != nil || len(left) > 0 {
		b.Errorf("left are %v, error %v", left, err)
	}
	if err := unix.Unmount(dir, 0); err != nil {
		b.Error(err)
	}
	b.ok("del", file)
}
