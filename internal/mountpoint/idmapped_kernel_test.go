package mountpoint

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// ownersOf starts a process in a user namespace, and opens the namespace.
func ownersOf(t *testing.T) *os.File {
	t.Helper()
	cmd := exec.Command("cat")
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 100000, Size: 65536}}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER, UidMappings: ids, GidMappings: ids}
	in, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = in.Close()
		_ = cmd.Wait()
	}()
	f, err := os.Open(filepath.Join("/proc", strconv.Itoa(cmd.Process.Pid), "ns/user"))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// mountMapped mounts a directory on another, with the owners of a user namespace.
func mountMapped(t *testing.T, from, to string) {
	t.Helper()
	owners := ownersOf(t)
	defer owners.Close()
	tree, err := unix.OpenTree(unix.AT_FDCWD, from, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(tree)
	attr := &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(owners.Fd())}
	if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, attr); err != nil {
		t.Fatal(err)
	}
	if err := unix.MoveMount(tree, "", unix.AT_FDCWD, to, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(to, unix.MNT_DETACH) })
}

// The kernel's answer and mountinfo say the same of a mapped mount, of a directory in it, and of the
// mount that it shows.
func TestKernelIsIdmapped(t *testing.T) {
	ublktest.Kernel(t, ublktest.OldestAndNewest)
	plain := t.TempDir()
	if err := unix.Mount("none", plain, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(plain, unix.MNT_DETACH) })
	mapped := t.TempDir()
	if err := os.Mkdir(plain+"/dir", 0o755); err != nil {
		t.Fatal(err)
	}
	mountMapped(t, plain, mapped)
	for path, want := range map[string]bool{plain: false, plain + "/dir": false, mapped: true, mapped + "/dir": true} {
		for name, ask := range map[string]func(string) (bool, error){
			"statmount": isIdmapped, "mountinfo": isIdmappedInMountinfo, "either": IsIdmapped,
		} {
			if is, err := ask(path); is != want || err != nil {
				t.Errorf("%s: %s: %v, error %v, want %v", name, path, is, err, want)
			}
		}
	}
}
