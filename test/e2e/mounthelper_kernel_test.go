package e2e

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// mount(8) finds the helper by its name, and umount(8) alone makes the device go.
func TestKernelMountHelper(t *testing.T) {
	b := kernelBed(t)
	const link = "/sbin/mount.ublk-loop"
	if err := os.Symlink(b.bin, link); err != nil {
		t.Skipf("cannot be installed: %v", err)
	}
	t.Cleanup(func() { _ = os.Remove(link) })
	image, dir := b.image(16<<20), t.TempDir()
	b.tool("mkfs.ext4", "-q", "-F", image)

	mount := func(args ...string) (string, error) {
		cmd := exec.Command("mount", append([]string{"-t", "ublk-loop"}, args...)...)
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		err := cmd.Run()
		return out.String(), err
	}
	if out, err := mount(image, dir); err == nil || !strings.Contains(out, "no server") || !strings.Contains(out, "hint: start") {
		t.Errorf("without a server: error %v, %q", err, out)
	}
	b.serve()
	for _, options := range []string{"rw,noatime", "ro"} {
		if out, err := mount("-o", options, image, dir); err != nil {
			t.Fatalf("mount -o %s: %v\n%s", options, err, out)
		}
		s := b.list()[0]
		if s.File != image || !s.Autoclear || s.ReadOnly != (options == "ro") {
			t.Errorf("mount -o %s makes %+v", options, s)
		}
		err := os.WriteFile(filepath.Join(dir, "file"), []byte(options), 0o600)
		if (err == nil) != (options != "ro") {
			t.Errorf("mount -o %s: write: %v", options, err)
		}
		if options != "ro" {
			remounts(b, mount, image, dir)
		}
		b.tool("umount", dir)
		b.isGone(s)
	}
	// If the image has no file system, no device is left.
	if out, err := mount(b.image(1<<20), dir); err == nil {
		t.Errorf("what is no file system is mounted: %s", out)
	}
	waitUntil(t, "nothing is left", func() bool { return len(b.list()) == 0 })
}

// remounts checks that a remount uses the existing device.
func remounts(b *bed, mount func(...string) (string, error), image, dir string) {
	b.Helper()
	for _, how := range []string{"ro", "rw"} {
		if out, err := mount("-o", "remount,"+how, image, dir); err != nil {
			b.Errorf("remount %s: %v\n%s", how, err, out)
		}
		err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600)
		if (err == nil) != (how == "rw") {
			b.Errorf("remounted %s: write: %v", how, err)
		}
		if n := len(b.list()); n != 1 {
			b.Errorf("%d devices after a remount", n)
		}
	}
}

// An interrupt during mount(8) does not make the exit status wrong. Here it comes when the
// image is mounted and mount(8) has not ended.
func TestKernelMountHelperInterrupted(t *testing.T) {
	b := kernelBed(t)
	dir := t.TempDir()
	helper, script, target := filepath.Join(dir, "mount.ublk-loop"), filepath.Join(dir, "script"), filepath.Join(dir, "target")
	if err := errors.Join(os.Symlink(b.bin, helper), os.Mkdir(target, 0o700)); err != nil {
		t.Fatal(err)
	}
	b.tool("cp", "/bin/mount", filepath.Join(dir, "mount"))
	b.write(script, "#!/bin/sh\n"+dir+`/mount "$@"; status=$?; kill -INT $PPID
i=0; while [ $i -lt 50 ]; do i=$((i+1)); sleep 0.01; done; exit $status`, 0o755)
	image := b.image(16 << 20)
	b.tool("mkfs.ext4", "-q", "-F", image)
	b.serve()
	out := b.tool("unshare", "--mount", "sh", "-c", `mount --bind "$1" /bin/mount && "$2" "$3" "$4" >&2; echo "status $?"
		grep -q " $4 ext4 " /proc/self/mounts && echo mounted; true`, "sh", script, helper, image, target)
	if out != "status 0\nmounted\n" {
		t.Errorf("the helper says %q", out)
	}
	waitUntil(t, "nothing is left", func() bool { return len(b.list()) == 0 })
}
