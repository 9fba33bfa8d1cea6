package oci

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/eintr"
)

// A container's file systems are mounted at the same places for all, in a
// namespace of its own each time. The places are on a tmpfs that is private
// everywhere, so that what is mounted there is seen nowhere else, although
// all other mounts may be shared. They stay: to remove the directory of a
// mount detaches the mount, in whichever namespace it is.
const (
	baseDir   = "/run/ublk-loop-oci"
	lockPath  = baseDir + "/lock"
	placesDir = baseDir + "/ns"

	imagePlace = placesDir + "/image" // all of an image, a directory of which is wanted
	lowerPlace = placesDir + "/lower" // what is below an overlay
	writePlace = placesDir + "/rw"    // what an overlay writes to
	rootPlace  = placesDir + "/rootfs"
)

// hooksDir is where the hooks put root directories for a moment, in the host's
// namespace.
const hooksDir = baseDir + "/hooks"

// The directories let pass whoever knows the way: root of a container with a
// user namespace is nobody here.
const placeMode = 0o711

// makePlaces makes the places, in the namespace of the caller, where they are
// not there yet.
func makePlaces() error {
	if err := makeDir(baseDir, placeMode); err != nil {
		return err
	}
	lock, err := os.OpenFile(lockPath, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }()
	if err := eintr.Repeat(func() error { return unix.Flock(int(lock.Fd()), unix.LOCK_EX) }); err != nil {
		return fmt.Errorf("lock %s: %w", lockPath, err)
	}
	if err := mountPlaces(); err != nil {
		return err
	}
	for _, dir := range []string{imagePlace, lowerPlace, rootPlace, writePlace} {
		if err := makeDir(dir, 0o755); err != nil {
			return err
		}
	}
	return nil
}

// mountPlaces mounts the tmpfs of the places. It is shared at first where its
// parent is, and may have stayed so if its maker was killed.
func mountPlaces() error {
	if err := makeDir(placesDir, placeMode); err != nil {
		return err
	}
	isMount, err := isMountRoot(placesDir)
	if err != nil {
		return err
	}
	if !isMount {
		data := fmt.Sprintf("mode=%o,size=64k,nr_inodes=16", placeMode)
		if err := mount("ublk-loop", placesDir, "tmpfs", unix.MS_NODEV|unix.MS_NOSUID|unix.MS_NOEXEC, data); err != nil {
			return err
		}
	}
	return mount("", placesDir, "", unix.MS_PRIVATE, "")
}

// unmountPlaces unmounts what is at the places, in the namespace of the calling
// thread. Not their tmpfs: what is mounted on that is private, but that itself is
// mounted on what may be shared, and its end would reach all namespaces.
func unmountPlaces() {
	for _, place := range []string{rootPlace, writePlace, lowerPlace, imagePlace} {
		_ = unix.Unmount(place, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	}
}

func isMountRoot(path string) (bool, error) {
	var stx unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, 0, 0, &stx); err != nil {
		return false, fmt.Errorf("look at %s: %w", path, err)
	}
	return stx.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0, nil
}

// makeDir makes a directory that has a mode whatever the umask is. One that
// something is mounted on has the mode of that: where the caller is itself in a
// namespace from here, it is a container's.
func makeDir(path string, mode os.FileMode) error {
	if err := os.Mkdir(path, mode); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	isMount, err := isMountRoot(path)
	if err != nil || isMount {
		return err
	}
	return os.Chmod(path, mode)
}
