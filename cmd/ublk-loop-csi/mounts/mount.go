package mounts

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
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

// Bind makes the file or directory at source visible at target.
func Bind(source, target string, readOnly bool) error {
	if err := unix.Mount(source, target, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind %s to %s: %w", source, target, err)
	}
	if !readOnly {
		return nil
	}
	// The other flags of the mount are those of its source, and stay. mount(2) would set all flags anew.
	readOnlyOnly := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	if err := unix.MountSetattr(unix.AT_FDCWD, target, unix.AT_SYMLINK_NOFOLLOW, &readOnlyOnly); err != nil {
		return errors.Join(fmt.Errorf("make %s read-only: %w", target, err), unmountOne(target))
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
