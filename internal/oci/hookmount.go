package oci

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/await"
	"github.com/ublk-loop/ublk-loop/internal/eintr"
	"github.com/ublk-loop/ublk-loop/internal/mountpoint"
)

// The hooks make each mount below its own directory in hooksDir. The name of the
// directory contains the time of the mount, and other users cannot pass the directory.
// Unlike the wrapper's mounts, these mounts are visible to all processes while the
// container is being made. They have the system's propagation, so that their unmount
// reaches all namespaces that they have reached.
//
// The directory contains:
const (
	hookRoot  = "rootfs" // the mount, and later an empty directory
	hookEmpty = "empty"  // replaces the mount point during a rename
	hookPID   = "pid"    // the container's first process, once it has started
)

// randomLength is the length of rand.Text, which uses the base32 alphabet of RFC 4648.
const randomLength = 26

// mountName returns a new name for a hook's mount.
func mountName() (string, error) {
	now, err := uptime()
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%016x-%s", now.Milliseconds(), rand.Text()), nil
}

// mountAge returns the age of a hook's mount by its name, and false for a name of another
// form. The age does not include the time that the machine slept, and does not depend on
// the wall clock. hooksDir does not survive a restart of the machine.
func mountAge(name string) (time.Duration, bool) {
	made, random, ok := strings.Cut(name, "-")
	if !ok || len(made) != 16 || len(random) != randomLength || strings.Trim(random, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") != "" {
		return 0, false
	}
	ms, err := strconv.ParseInt(made, 16, 64)
	now, clockErr := uptime()
	if err != nil || clockErr != nil {
		return 0, false
	}
	return now - time.Duration(ms)*time.Millisecond, true
}

func uptime() (time.Duration, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return 0, os.NewSyscallError("clock_gettime", err)
	}
	return time.Duration(ts.Nano()), nil
}

// openTree returns a detached copy of the mount at rootPlace in the namespace of the
// calling thread.
func openTree() (*os.File, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, rootPlace, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return nil, &os.PathError{Op: "open_tree", Path: rootPlace, Err: err}
	}
	return os.NewFile(uintptr(fd), rootPlace), nil
}

// placeTree attaches a detached mount under a name, in one step. If it fails, it leaves
// nothing.
func placeTree(tree *os.File, name string, p passage) error {
	err := makeDir(hooksDir, placeMode)
	if err == nil {
		err = p.make(hooksDir + "/" + name)
	}
	if err == nil {
		err = os.Mkdir(hookMountPath(name), 0o700)
	}
	if err == nil {
		err = unix.MoveMount(int(tree.Fd()), "", unix.AT_FDCWD, hookMountPath(name), unix.MOVE_MOUNT_F_EMPTY_PATH)
		if err != nil {
			err = &os.PathError{Op: "move_mount to", Path: hookMountPath(name), Err: err}
		}
	}
	if err != nil {
		return errors.Join(err, removeMount(name))
	}
	return nil
}

// hookMountPath returns the path of the mount with a name.
func hookMountPath(name string) string { return hooksDir + "/" + name + "/" + hookRoot }

// passage says who may pass the directory that leads to a mount. Other users must not,
// because they could execute the image's setuid programs.
type passage struct {
	mode  os.FileMode
	group int
}

// passage returns who must reach the container's mount: the container's root. In a user
// namespace that is an ordinary user of the host, so that its group may pass. passage
// returns an error that wraps EOPNOTSUPP if the group is unknown.
func (c *config) passage() (passage, error) {
	u, err := c.userNamespace()
	if err != nil || u == nil {
		return passage{mode: 0o700}, err
	}
	group, err := u.rootGroup()
	return passage{0o710, group}, err
}

// make makes the directory.
func (p passage) make(path string) error {
	if err := os.Mkdir(path, 0o700); err != nil {
		return err
	}
	if err := os.Chown(path, 0, p.group); err != nil {
		return err
	}
	return os.Chmod(path, p.mode)
}

// leaveMount unmounts, and leaves an empty directory while the container runs. runc
// changes to the root directory on the host before it enters the container (the working
// directory of commandTemplate, in libcontainer/container_linux.go).
func leaveMount(name string) error {
	mounted, err := unmount(name)
	if !mounted {
		return err
	}
	// Another namespace may still have a copy of the mount. The copy ends when its mount
	// point is removed.
	empty := hooksDir + "/" + name + "/" + hookEmpty
	if err := os.Mkdir(empty, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	if err := unix.Rename(empty, hookMountPath(name)); err != nil { // os.Rename does not replace a directory
		return &os.LinkError{Op: "rename", Old: empty, New: hookMountPath(name), Err: err}
	}
	return err
}

// removeMount removes a mount and its directory. A created container keeps its own mount
// as its root.
func removeMount(name string) error {
	_, unmountErr := unmount(name)
	if unmountErr != nil && !errors.Is(unmountErr, errNoAnswer) {
		return unmountErr
	}
	dir := hooksDir + "/" + name
	for _, path := range []string{hookMountPath(name), dir + "/" + hookEmpty, dir + "/" + hookPID, dir} {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return unmountErr
}

// unmountPatience bounds the time that a hook waits for the end of a mount.
const unmountPatience = 20 * time.Second

// errNoAnswer is returned if a file system does not end in time. It has no path, and its device goes when it ends.
var errNoAnswer = fmt.Errorf("its device does not answer within %s; its file system stays until the device's server answers, or until "+
	"ublk-loop del --force", unmountPatience)

// unmount unmounts a hook's mount, and reports whether it was mounted. It returns errNoAnswer if the mount has gone
// but its file system has not ended. Nothing interrupts that end while the device waits for a server, not
// even the end of the process, so that a child waits for it.
func unmount(name string) (bool, error) {
	path := hookMountPath(name)
	if is, err := isMounted(path); err != nil || !is {
		return false, err
	}
	ctx, cancel := context.WithTimeoutCause(context.Background(), unmountPatience, errNoAnswer)
	defer cancel()
	cmd := exec.Command("/proc/self/exe", "hook", "unmount", name)
	cmd.Env, cmd.Dir, cmd.SysProcAttr = []string{}, "/", &unix.SysProcAttr{Setsid: true}
	said, err := await.Result(ctx, cmd.CombinedOutput)
	var exit *exec.ExitError
	switch {
	case err == nil:
		return true, nil
	case errors.As(err, &exit):
		return false, fmt.Errorf("unmount %s: %w: %s", path, err, strings.TrimSpace(string(said)))
	case !errors.Is(err, errNoAnswer): // the child could not be started
		return true, Unmount(name)
	}
	if is, isErr := isMounted(path); is || isErr != nil {
		return false, errors.Join(unmountError(path, unix.ETIMEDOUT), isErr)
	}
	return true, unmountError(path, err)
}

// isMounted reports whether a path exists and is a mount.
func isMounted(path string) (bool, error) {
	is, err := mountpoint.Is(path)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	return is, err
}

// Unmount unmounts the mount with a name that Precreate gave, and waits for the end of its file system. It succeeds if
// it is not mounted. It returns an error that wraps EINVAL for any other name.
func Unmount(name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	path := hookMountPath(name)
	return unmountError(path, eintr.Repeat(func() error { return unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) }))
}

// unmountError returns the error of the unmount of a path, and nil if the path does not exist or is not mounted.
func unmountError(path string, err error) error {
	if err == nil || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL) {
		return nil
	}
	return &os.PathError{Op: "unmount", Path: path, Err: err}
}

// started records a started container's first process.
func started(name string, pid int) error {
	// Sweep may have removed the directory before the start.
	if err := os.MkdirAll(hookMountPath(name), 0o700); err != nil {
		return err
	}
	return os.WriteFile(hooksDir+"/"+name+"/"+hookPID, []byte(processText(pid)), 0o600)
}

// runs reports whether a container's first process exists.
func runs(name string) bool {
	text, err := os.ReadFile(hooksDir + "/" + name + "/" + hookPID)
	return err == nil && processRuns(string(text))
}
