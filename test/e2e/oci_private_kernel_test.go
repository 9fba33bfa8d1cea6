package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// openToAll makes a directory that every user can pass, and so are those above it.
func openToAll(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := errors.Join(os.Chmod(filepath.Dir(dir), 0o711), os.Chmod(dir, 0o711)); err != nil {
		t.Fatal(err)
	}
	return dir
}

// Root of a container leaves a setuid program in its overlay. No local user reaches
// it, and a directory in which one would is refused.
func TestKernelOCIOverlayPrivate(t *testing.T) {
	ublktest.Require(t, ublktest.Once)
	overlays := openToAll(t)
	w := kernelBed(t).wrap("runc", fmt.Sprintf("allowed_overlays = [%q]", overlays))
	tree := rootTree(w, "x")
	w.tool("cp", w.bin, tree+"/bin/ublk-loop") // which lists devices for root only
	image := w.imageOf("squashfs", tree)
	// becomesRoot reports whether user 65534 is root by the program in a directory.
	becomesRoot := func(dir string) bool {
		cmd := exec.Command(filepath.Join(dir, "upper/ublk-loop"), "list")
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		return cmd.Run() == nil
	}
	leave := func(dir string) string {
		ask := asked{"image": image, "overlay": "dir:" + dir}
		return w.bundle(ask, "sh", "-c", "busybox cp /bin/ublk-loop / && busybox chmod 4755 /ublk-loop")
	}
	dir := overlays + "/private"
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	w.runs("c", leave(dir))
	if info, err := os.Stat(dir + "/upper/ublk-loop"); err != nil || info.Mode()&os.ModeSetuid == 0 {
		t.Fatalf("the container has left no setuid program: %v, error %v", info, err)
	}
	if err := os.Chmod(dir, 0o711); err != nil || !becomesRoot(dir) {
		t.Fatalf("the program makes nobody root: error %v", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil || becomesRoot(dir) {
		t.Errorf("a local user is root by the program of a container, error %v", err)
	}
	for _, mode := range []os.FileMode{0o755, 0o711, 0o701, 0o710} {
		dir := fmt.Sprintf("%s/%o", overlays, mode)
		if err := errors.Join(os.Mkdir(dir, mode), os.Chmod(dir, mode)); err != nil {
			t.Fatal(err)
		}
		w.refuses(leave(dir), dir, "other users")
		if becomesRoot(dir) {
			t.Errorf("mode %s: a local user is root by the program of a container", mode)
		}
	}
	owned := overlays + "/owned"
	if err := errors.Join(os.Mkdir(owned, 0o700), os.Chown(owned, 65534, 65534)); err != nil {
		t.Fatal(err)
	}
	w.refuses(leave(owned), owned, "other users", "owner 65534")
	var st unix.Stat_t
	if err := unix.Stat(owned+"/upper", &st); !errors.Is(err, unix.ENOENT) {
		t.Errorf("something was made in a directory that is refused: error %v", err)
	}
}
