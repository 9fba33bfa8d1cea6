package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// openToAll makes a directory that all users can pass, and makes its parents passable.
func openToAll(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := errors.Join(os.Chmod(filepath.Dir(dir), 0o711), os.Chmod(dir, 0o711)); err != nil {
		t.Fatal(err)
	}
	return dir
}

// Root of a container leaves a setuid program in its overlay. No local user can reach it,
// and a directory in which a local user could is refused.
func TestKernelOCIOverlayPrivate(t *testing.T) {
	ublktest.Require(t, ublktest.Once)
	overlays := openToAll(t)
	w := kernelBed(t).wrap("runc", fmt.Sprintf("allowed_overlays = [%q]", overlays))
	tree := rootTree(w, "x")
	w.tool("cp", w.bin, tree+"/bin/ublk-loop") // lists devices for root only
	image := w.imageOf("squashfs", tree)
	// becomesRoot reports whether the program in a directory makes user 65534 root.
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

// A tmpfs takes no more memory than the settings allow, neither by its size nor by the
// number of its files.
func TestKernelOCITmpfsLimit(t *testing.T) {
	ublktest.Require(t, ublktest.Once)
	w := kernelBed(t).wrap("runc", `tmpfs_limit = "1m"`)
	image := w.imageOf("squashfs", rootTree(w, "x"))
	ask := func(size string) string {
		return w.bundle(asked{"image": image, "overlay": "tmpfs:" + size}, "sh", "-c",
			"i=0; while [ $i -lt 5000 ] && true >/f$i; do i=$((i+1)); done 2>/dev/null; echo $i")
	}
	for _, size := range []string{"1025k", "99g", "8589934591g"} {
		w.refuses(ask(size), "tmpfs_limit")
	}
	for _, size := range []string{"8589934592g", "17179869184g", "17179869185g", "999999999999g"} { // the kernel would take the second for 0 and the third for 1g
		w.refuses(ask(size), "2^63 bytes or more")
	}
	out := w.runs("c", ask("1m"))
	if files, err := strconv.Atoi(strings.TrimSpace(out)); err != nil || files < 1024 || files > 1024+1<<20/4096 {
		t.Errorf("the container has made %q files", out)
	}
}
