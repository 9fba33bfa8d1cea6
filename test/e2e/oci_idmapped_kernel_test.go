package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// mapOwners mounts a directory on itself, with the owners of a user namespace.
func (w *wrapped) mapOwners(dir string) {
	w.Helper()
	namespace, err := os.Open(w.userNamespace())
	if err != nil {
		w.Fatal(err)
	}
	defer namespace.Close()
	tree, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		w.Fatal(err)
	}
	defer unix.Close(tree)
	attr := &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(namespace.Fd())}
	if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, attr); err != nil {
		w.Fatal(err)
	}
	if err := unix.MoveMount(tree, "", unix.AT_FDCWD, dir, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		w.Fatal(err)
	}
}

// A container is refused if the engine has mapped the owners of its root directory, because
// the owners in an image stay.
func TestKernelOCIIdmappedRoot(t *testing.T) {
	test := func(w *wrapped, bundle string, refused func()) {
		root := filepath.Join(bundle, "rootfs")
		w.mapOwners(root)
		w.mounts = hostMounts(w)
		refused()
		w.tool("umount", root)
		w.mounts = hostMounts(w)
	}
	t.Run("wrapper", func(t *testing.T) {
		w := kernelBed(t).wrap("crun")
		bundle := w.bundle(asked{"image": w.imageOf("erofs", rootTree(w, "x"))}, "true")
		test(w, bundle, func() {
			w.refuses(bundle, filepath.Join(bundle, "rootfs"), "idmapped mount", "operation not supported")
		})
		w.runs("plain", bundle)
	})
	t.Run("hooks", func(t *testing.T) {
		w := kernelBed(t).wrap("crun")
		bundle := w.bundle(asked{"image": w.imageOf("erofs", rootTree(w, "x"))}, "true")
		w.editBundle(bundle, func(config map[string]any) {
			config["root"] = map[string]any{"path": filepath.Join(bundle, "rootfs")}
		})
		test(w, bundle, func() {
			cmd := w.command("hook", "precreate")
			cmd.Stdin = strings.NewReader(w.readFile(filepath.Join(bundle, "config.json")))
			if r := w.runCommand(cmd); r.status != 1 || r.out != "" || !strings.Contains(r.err, "idmapped mount") {
				w.Errorf("status %d, output %q, errors %q", r.status, r.out, r.err)
			}
		})
	})
}

// A container with a user namespace, a root from an image and an idmapped volume sees root's
// files as its own in both.
func TestKernelOCIIdmappedVolume(t *testing.T) {
	ublktest.Require(t, ublktest.Engines, ublktest.OldestAndNewest)
	runtime := engines(t) + "/runc-v1.5.2" // Debian's runc 1.1 has no idmapped mounts
	w := kernelBed(t).wrap(runtime)
	volume := w.TempDir()
	w.write(filepath.Join(volume, "file"), "x", 0o600)
	bundle := w.bundle(asked{"image": w.imageOf("erofs", rootTree(w, "of the image\n"))}, "sh", "-c", "cat /content; busybox stat -c %u /tmp/file /bin/busybox")
	w.inUserNamespace(bundle)
	w.editBundle(bundle, func(config map[string]any) {
		ids := []map[string]any{{"containerID": 0, "hostID": 100000, "size": 65536}}
		mounts, _ := config["mounts"].([]any)
		config["mounts"] = append(mounts, map[string]any{
			"destination": "/tmp", "type": "bind", "source": volume, "options": []string{"bind"}, "uidMappings": ids, "gidMappings": ids,
		})
	})
	if out := w.runs("c", bundle); out != "of the image\n0\n65534\n" {
		w.Errorf("the container prints %q", out)
	}
	w.nothingLeft()
}
