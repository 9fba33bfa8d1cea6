package loop

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/identity"
	"github.com/ublk-loop/ublk-loop/internal/process"
	"github.com/ublk-loop/ublk-loop/internal/udev"
	"github.com/ublk-loop/ublk-loop/loop/internal/progress"
	"github.com/ublk-loop/ublk-loop/loop/internal/statefile"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// stopUnused removes the disk unless it is in use. It waits a moment for an opener that
// does not claim the device, as a mount would.
func stopUnused(ctl *ublk.Control, id uint32) error {
	path := ublk.BlockPath(id)
	isHeld := func() bool {
		claimed, err := IsClaimed(id)
		return claimed && err == nil
	}
	err := udev.OutlastLook(path, func() error { return tryStop(ctl, id) }, isHeld)
	if errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("remove %s: %w", path, ErrInUse)
	}
	return err
}

// tryStop stops a device that is not open. The driver checks that if it can (Linux 7.0).
// Otherwise tryStop looks at all processes, and a process may still open the device
// between the look and the stop. If a request has no answer, tryStop gives up after a time, and
// the stop continues.
func tryStop(ctl *ublk.Control, id uint32) error {
	_, err := stopPatiently(ctl.TryStop, id)
	if errors.Is(err, progress.ErrStalled) {
		return notAnswered(id, adviceUnused)
	}
	if !errors.Is(err, ublk.ErrNotSupported) {
		return err
	}
	used, err := isOpen(id)
	if err != nil {
		return fmt.Errorf("find users of %s: %w", ublk.BlockPath(id), err)
	}
	if used {
		return unix.EBUSY
	}
	// A process may have opened it since, or have mapped it and closed its descriptor. What cannot be
	// written is lost.
	if err := WriteBack(ctl, id); errors.Is(err, progress.ErrStalled) {
		return err
	}
	if _, err = stopPatiently(ctl.Stop, id); errors.Is(err, progress.ErrStalled) {
		return notAnswered(id, adviceUnused)
	}
	return err
}

// adviceUnused is the hint for a device that is not in use, and whose requests have no answer.
const adviceUnused = "the disk below may hang, see dmesg; with {force} a server of this device alone is killed"

// IsClaimed reports whether a device is mounted, or claimed in the same way by device
// mapper, swap or another exclusive opener. It finds the device by its number: the name
// may have been removed, or lead elsewhere.
func IsClaimed(id uint32) (bool, error) {
	number, err := diskNumber(id)
	if err != nil || number == "" {
		return false, err
	}
	return isClaimed(id, number)
}

func isClaimed(id uint32, number string) (bool, error) {
	disk, err := udev.OpenDisk(ublk.BlockPath(id), number, unix.O_RDONLY|unix.O_EXCL|unix.O_NONBLOCK)
	switch {
	case err == nil:
		return false, disk.Close()
	case errors.Is(err, unix.EBUSY):
		return true, nil
	case errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENODEV):
		return false, nil // the disk has gone
	}
	return false, err
}

// diskNumber returns the number of a device's disk, major:minor, or "" if it has none.
func diskNumber(id uint32) (string, error) {
	number, _ := blockOf(id)
	if number != "" {
		return number, nil
	}
	_, err := os.Stat("/sys/block")
	return "", err
}

// isOpen reports whether a device is claimed, or open in any process that this process
// can inspect.
func isOpen(id uint32) (bool, error) {
	number, err := diskNumber(id)
	if err != nil || number == "" {
		return false, err
	}
	if claimed, err := isClaimed(id, number); err != nil || claimed {
		return claimed, err
	}
	if err := process.CheckProc(); err != nil {
		return false, err
	}
	fds, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		return false, err
	}
	for _, fd := range fds {
		if open, err := statOpen(fd); err == nil && open.Mode&unix.S_IFMT == unix.S_IFBLK && identity.MajMin(open.Rdev) == number {
			return true, nil
		}
	}
	return false, nil
}

// statOpen returns the numbers of what another process has open, by a path in /proc. It
// does not ask the file system, which may not answer.
func statOpen(path string) (st unix.Stat_t, err error) {
	var stx unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, unix.AT_STATX_DONT_SYNC, unix.STATX_TYPE|unix.STATX_INO|unix.STATX_SIZE, &stx); err != nil {
		return st, err
	}
	st.Mode, st.Ino, st.Size = uint32(stx.Mode), stx.Ino, int64(stx.Size)
	st.Dev, st.Rdev = unix.Mkdev(stx.Dev_major, stx.Dev_minor), unix.Mkdev(stx.Rdev_major, stx.Rdev_minor)
	return st, nil
}

// StopUnused removes the disk of a device of ublk-loop that is not in use. The device's
// server then removes the rest. StopUnused succeeds if the device is gone, even if
// another device has its id. It returns an error that wraps ErrInUse if the device stays
// open for longer than udev would keep it open.
func StopUnused(ctl *ublk.Control, device TaggedID) error {
	lock, err := statefile.Acquire(device.ID) // the device's server needs the lock before it frees the id
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

// stallTime is the time without a completed request after which WriteBack gives up.
const stallTime = 10 * time.Second

// WriteBack writes the dirty pages of a device that outlives its server (Config.OnCrash), of its
// partitions and of the file systems on them. The kernel does that itself when it removes the disk
// of another device. Of this one the driver fails all requests before that (ublk_force_abort_dev in
// drivers/block/ublk_drv.c), so that the pages would be lost.
//
// A server must not open its own devices, so that another process has to call WriteBack. It does
// nothing for other devices, or if the driver knows that there is no server. It returns an error that
// wraps ETIMEDOUT if the device completes no request for 10 seconds. The write then goes on.
func WriteBack(ctl *ublk.Control, id uint32) error {
	info, err := ctl.Info(id)
	if err != nil {
		return ignoreGone(err)
	}
	if info.State != ublk.StateLive || !info.Features.Recoverable() {
		return nil
	}
	written := make(chan error, 1)
	go func() { written <- writeBack(filepath.Base(ublk.BlockPath(id))) }() // ends with the device's requests
	err = progress.Await(filepath.Base(ublk.BlockPath(id)), stallTime, written)
	if errors.Is(err, progress.ErrStalled) {
		err = fmt.Errorf("write the dirty pages of %s: %w", ublk.BlockPath(id), err)
	}
	return err
}

// writeBack writes the dirty pages of a disk and its partitions.
func writeBack(disk string) error {
	var errs []error
	for _, name := range append(udev.Partitions(disk), disk) {
		number, err := os.ReadFile(filepath.Join("/sys/class/block", name, "dev"))
		if err == nil {
			err = flushBuffers(filepath.Join("/dev", name), strings.TrimSpace(string(number)))
		}
		if !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ENXIO) && !errors.Is(err, unix.ENODEV) { // gone
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// flushBuffers is BLKFLSBUF, which also writes a file system that is mounted.
func flushBuffers(path, number string) error {
	disk, err := udev.OpenDisk(path, number, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return err
	}
	if err = unix.IoctlSetInt(int(disk.Fd()), unix.BLKFLSBUF, 0); err != nil {
		err = fmt.Errorf("write the dirty pages of %s: %w", path, err)
	}
	return errors.Join(err, disk.Close())
}
