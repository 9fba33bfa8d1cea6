package mounts

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/identity"
)

// FileSystem mounts the file system of a device. mount(8) knows which options are flags of the
// kernel and which are the file system's.
func FileSystem(ctx context.Context, device, target, fsType string, options []string) error {
	args := []string{"-i", "-t", fsType}
	if len(options) > 0 {
		args = append(args, "-o", strings.Join(options, ","))
	}
	return Call(ctx, "mount", append(args, "--", device, target)...)
}

// IsReadOnly reports whether options of mount(8) make a mount read-only. Each can be a list with commas, and the last one counts.
func IsReadOnly(options []string) (is bool) {
	for option := range strings.SplitSeq(strings.Join(options, ","), ",") {
		switch option {
		case "ro":
			is = true
		case "rw":
			is = false
		}
	}
	return is
}

// ErrOther is returned by Bind, OpenRoot and Freeze if a path does not lead to what the caller takes it for.
var ErrOther = errors.New("not the file system or the node of the device")

// isOf returns ErrOther unless an open file belongs to the file system of the device with a number, or is the node of the device.
func isOf(fd int, path, number string) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("stat %s: %w", path, err)
	}
	device := st.Dev
	if st.Mode&unix.S_IFMT == unix.S_IFBLK {
		device = st.Rdev
	}
	if is := identity.MajMin(device); is != number {
		return fmt.Errorf("%s belongs to device %s, not %s: %w", path, is, number, ErrOther)
	}
	return nil
}

// Bind makes the mounted file system, or the node, of the device with a number visible at target. Others can unmount
// the source at any time, and a pod would then write to the directory below. Therefore Bind checks what it has got
// hold of before it makes it visible.
func Bind(source, target, number string, readOnly bool) error {
	tree, err := unix.OpenTree(unix.AT_FDCWD, source, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return fmt.Errorf("open %s: %w", source, err)
	}
	defer func() { _ = unix.Close(tree) }()
	if err := isOf(tree, source, number); err != nil {
		return err
	}
	if readOnly {
		// The other flags of the mount are those of its source, and stay.
		attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
		if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &attr); err != nil {
			return fmt.Errorf("make the mount of %s read-only: %w", source, err)
		}
	}
	if err := unix.MoveMount(tree, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("bind %s to %s: %w", source, target, err)
	}
	return nil
}

// Unmount unmounts everything at a path. It returns EBUSY if the file system is in use.
func Unmount(path string) error {
	for {
		t, err := Read()
		if err != nil {
			return err
		}
		if t.At(path) == nil {
			return nil
		}
		if err := unmountOne(path); err != nil {
			return err
		}
	}
}

func unmountOne(path string) error {
	if err := unix.Unmount(path, unix.UMOUNT_NOFOLLOW); err != nil {
		return fmt.Errorf("unmount %s: %w", path, err)
	}
	return nil
}

// Call runs a program of the system, which must succeed.
func Call(ctx context.Context, program string, args ...string) error {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C"}
	out, err := cmd.CombinedOutput()
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return fmt.Errorf("%s: %w: %s", program, err, strings.TrimSpace(string(out)))
}
