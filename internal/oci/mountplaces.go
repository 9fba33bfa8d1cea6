package oci

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/flock"
	"github.com/ublk-loop/ublk-loop/internal/mountpoint"
)

// All containers' file systems are mounted at the same places, each in a namespace of its
// own. The places are on a tmpfs that is private in all namespaces, so that a mount there
// appears in no other namespace, even if all other mounts are shared. The places are
// never removed, because removing a mount point would detach the mounts on it in all
// namespaces.
const (
	baseDir   = "/run/ublk-loop-oci"
	lockPath  = baseDir + "/lock"
	placesDir = baseDir + "/ns"

	imagePlace = placesDir + "/image" // a whole image, if only one of its directories is needed
	lowerPlace = placesDir + "/lower" // the lower directory of an overlay
	writePlace = placesDir + "/rw"    // the upper and work directory of an overlay
	rootPlace  = placesDir + "/rootfs"
)

// hooksDir is where the hooks mount root directories temporarily, in the host's
// namespace.
const hooksDir = baseDir + "/hooks"

// placeMode lets other users pass the directories, because the root of a container with a
// user namespace is an ordinary user of the host.
const placeMode = 0o711

// makePlaces makes the places that do not exist yet, in the caller's namespace.
func makePlaces() error {
	if err := makeDir(baseDir, placeMode); err != nil {
		return err
	}
	lock, err := os.OpenFile(lockPath, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }()
	if err := flock.Exclusive(lock, lockPatience); err != nil {
		return err
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

// lockPatience bounds the wait for a lock. A call holds each for a moment, but a stopped one keeps it.
const lockPatience = 10 * time.Second

// mountPlaces mounts the tmpfs of the places. A new mount below a shared mount is shared
// too, and an existing one may have stayed shared if its maker was killed.
func mountPlaces() error {
	if err := makeDir(placesDir, placeMode); err != nil {
		return err
	}
	isMount, err := mountpoint.Is(placesDir)
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

// unmountPlaces unmounts the mounts at the places, in the namespace of the calling
// thread. It keeps the tmpfs of the places: mounts on it are private, but the tmpfs
// itself may be on a shared mount, so that its unmount would reach all namespaces.
func unmountPlaces() {
	for _, place := range []string{rootPlace, writePlace, lowerPlace, imagePlace} {
		_ = unix.Unmount(place, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	}
}

// makeDir makes a directory with a mode that does not depend on the umask. A mount point
// keeps the mode of its mount: if the caller is itself in such a namespace, the mount is
// a container's.
func makeDir(path string, mode os.FileMode) error {
	if err := os.Mkdir(path, mode); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	isMount, err := mountpoint.Is(path)
	if err != nil || isMount {
		return err
	}
	return os.Chmod(path, mode)
}
