package loop

import (
	"errors"
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/udev"
	"github.com/ublk-loop/ublk-loop/loop/internal/process"
	"github.com/ublk-loop/ublk-loop/loop/internal/statefile"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// stopUnused removes the disk unless somebody has it open. An opener that does
// not hold the device as a mount does is given a moment to finish.
func stopUnused(ctl *ublk.Control, id uint32) error {
	path := ublk.BlockPath(id)
	err := udev.OutlastLook(path, func() error { return tryStop(ctl, id) }, func() bool { return isClaimed(path) })
	if errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("remove %s: %w", path, ErrInUse)
	}
	return err
}

// tryStop stops a device that nobody has open: the driver sees to that where it
// can (Linux 7.0), else a look at all processes must do, between which and the
// stop somebody may come.
func tryStop(ctl *ublk.Control, id uint32) error {
	err := ctl.TryStop(id)
	if !errors.Is(err, ublk.ErrNotSupported) {
		return err
	}
	used, err := isOpen(ublk.BlockPath(id))
	if err != nil {
		return err
	}
	if used {
		return unix.EBUSY
	}
	return ctl.Stop(id)
}

// isClaimed reports whether a device is mounted, or held in the same way by
// device mapper, swap or another exclusive opener.
func isClaimed(path string) bool {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_EXCL|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err == nil {
		_ = unix.Close(fd)
	}
	return errors.Is(err, unix.EBUSY)
}

// isOpen reports whether a block device is claimed, or open in any process
// that can be looked into.
func isOpen(path string) (bool, error) {
	if isClaimed(path) {
		return true, nil
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return false, nil // no node, nobody opened it by this one
	}
	if err := process.CheckProc(); err != nil {
		return false, fmt.Errorf("find users of %s: %w", path, err)
	}
	fds, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		return false, err
	}
	for _, fd := range fds {
		var open unix.Stat_t
		if unix.Stat(fd, &open) == nil && open.Mode&unix.S_IFMT == unix.S_IFBLK && open.Rdev == st.Rdev {
			return true, nil
		}
	}
	return false, nil
}

// StopUnused removes the disk of a device of ours that nobody uses: its server
// then removes the rest. One that is gone is no error, whatever has its id now.
// It returns an error that wraps ErrInUse for one that somebody has open for
// longer than udev looks at a disk.
func StopUnused(ctl *ublk.Control, device TaggedID) error {
	lock, err := statefile.Acquire(device.ID) // with which its server waits until it gives the id free
	if err != nil {
		return err
	}
	defer lock.Release()
	info, err := ctl.Info(device.ID)
	switch {
	case err != nil:
		return ignoreGone(err)
	case !isOurs(&info):
		return ErrForeign
	case info.Tag != device.Tag:
		return nil
	}
	return ignoreGone(stopUnused(ctl, device.ID))
}
