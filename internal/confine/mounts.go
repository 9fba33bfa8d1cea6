package confine

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/mountpoint"
)

// keptMounts are the mounts that a server needs. It does not need the mounts below them.
var keptMounts = []string{"/", "/proc", "/sys", "/dev", "/run", "/run/ublk-loop"}

// isKept reports whether a mount stays. A container may have single device nodes mounted
// in /dev.
func isKept(mountPoint string) bool {
	return slices.Contains(keptMounts, mountPoint) || strings.HasPrefix(mountPoint, "/dev/ublk")
}

// unshareMounts gives the calling thread a mount namespace with only the mounts that a
// server needs. In the caller's namespace, or in a full copy of it, a server would keep
// file systems from being unmounted, and possibly the one on its own device.
//
// In a chroot that is not a mount point, the mounts outside of it are out of reach and
// could not be detached from a copy. The server then stays in the caller's namespace, and
// sees its unmounts.
func unshareMounts() error {
	isMount, err := mountpoint.Is("/")
	if err != nil || !isMount {
		return err
	}
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("make a mount namespace: %w", err)
	}
	// This must come first, because an unmount of a shared mount affects all namespaces.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	return detachMounts(
		func() ([]byte, error) { return os.ReadFile("/proc/thread-self/mountinfo") },
		func(path string) error { return unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) },
	)
}

// detachMounts detaches all mounts except the kept ones. An unmount also removes the
// mounts below, and may uncover a hidden mount. Therefore detachMounts repeats until
// nothing changes.
func detachMounts(list func() ([]byte, error), unmount func(string) error) error {
	for {
		table, err := list()
		if err != nil {
			return fmt.Errorf("list mounts: %w", err)
		}
		changed := false
		gone := ""
		for _, mountPoint := range mountPoints(table) {
			if isKept(mountPoint) || gone != "" && strings.HasPrefix(mountPoint, gone+"/") {
				continue
			}
			if unmount(mountPoint) == nil {
				changed, gone = true, mountPoint
			}
		}
		if !changed {
			return nil
		}
	}
}

// mountPoints returns the mount points in a /proc/PID/mountinfo, parents before children:
//
//	36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw
func mountPoints(mountinfo []byte) []string {
	var points []string
	for line := range bytes.Lines(mountinfo) {
		if fields := mountpoint.Fields(string(line)); len(fields) > 4 {
			points = append(points, mountpoint.Unescape(fields[4]))
		}
	}
	slices.Sort(points)
	return points
}
