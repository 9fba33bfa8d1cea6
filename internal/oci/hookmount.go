package oci

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/eintr"
)

// A mount of the hooks is below a directory of its own in hooksDir, whose name
// tells when it was made, and which nobody else may pass: unlike the wrapper's
// mounts it can be seen by all, for as long as the container is being made. How
// it reaches other namespaces is as the system has it, so that its end reaches
// them as well.
//
// In that directory are:
const (
	hookRoot  = "rootfs" // the mount, and after that an empty directory
	hookEmpty = "empty"  // what takes its place, for a moment
	hookPID   = "pid"    // of the container's first process, once it has started
)

// randomLength is that of rand.Text, of RFC 4648's base32 alphabet.
const randomLength = 26

// mountName returns a new name of a hook's mount.
func mountName() (string, error) {
	now, err := uptime()
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%016x-%s", now.Milliseconds(), rand.Text()), nil
}

// mountAge returns how old the hook's mount of a name is, false for a name that is
// none. It does not count the time in which the machine slept, nor does it depend
// on the clock being right; hooksDir does not outlive the machine's run.
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

// openTree returns the mount at rootPlace in the namespace of the calling thread,
// as one that is nowhere yet.
func openTree() (*os.File, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, rootPlace, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return nil, &os.PathError{Op: "open_tree", Path: rootPlace, Err: err}
	}
	return os.NewFile(uintptr(fd), rootPlace), nil
}

// placeTree puts a mount at the place of a name, in one step. A failure leaves
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

// hookMountPath is where the mount of a name is.
func hookMountPath(name string) string { return hooksDir + "/" + name + "/" + hookRoot }

// passage is who may pass the directory that leads to a mount. Nobody else may: the
// image's setuid programs are there for whoever gets to them.
type passage struct {
	mode  os.FileMode
	group int
}

// passage returns who has to get to the container's mount: its root, who is nobody
// here if it has a user namespace, so that its group may pass. It returns an error
// that wraps EOPNOTSUPP where that group is not known.
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

// leaveMount unmounts, and leaves an empty directory for as long as the container
// runs: runc goes to its root directory, here, before it enters the container (the
// working directory of commandTemplate, in libcontainer/container_linux.go).
func leaveMount(name string) error {
	mounted, err := unmount(hookMountPath(name))
	if err != nil || !mounted {
		return err
	}
	// In another namespace there may still be a copy of the mount. It ends with the
	// directory that it is at.
	empty := hooksDir + "/" + name + "/" + hookEmpty
	if err := os.Mkdir(empty, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	if err := unix.Rename(empty, hookMountPath(name)); err != nil { // os.Rename replaces no directory
		return &os.LinkError{Op: "rename", Old: empty, New: hookMountPath(name), Err: err}
	}
	return nil
}

// removeMount removes all that there is of a mount. A container that has been
// created has its own, as its root.
func removeMount(name string) error {
	if _, err := unmount(hookMountPath(name)); err != nil {
		return err
	}
	dir := hooksDir + "/" + name
	for _, path := range []string{hookMountPath(name), dir + "/" + hookEmpty, dir + "/" + hookPID, dir} {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// unmount reports whether there was something to unmount.
func unmount(path string) (bool, error) {
	err := eintr.Repeat(func() error { return unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) })
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EINVAL): // nothing is there, or mounted
		return false, nil
	}
	return false, &os.PathError{Op: "unmount", Path: path, Err: err}
}

// started notes down the first process of a container that has been started.
func started(name string, pid int) error {
	// The mount may have been swept before the start.
	if err := os.MkdirAll(hookMountPath(name), 0o700); err != nil {
		return err
	}
	return os.WriteFile(hooksDir+"/"+name+"/"+hookPID, []byte(strconv.Itoa(pid)), 0o600)
}

// runs reports whether a container's first process is there. Another one of the
// same number keeps an empty directory, and no more.
func runs(name string) bool {
	text, err := os.ReadFile(hooksDir + "/" + name + "/" + hookPID)
	if err != nil {
		return false
	}
	pid, err := strconv.Atoi(string(text))
	return err == nil && pid > 0 && !errors.Is(unix.Kill(pid, 0), unix.ESRCH)
}
