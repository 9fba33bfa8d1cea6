package loop

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk"
)

// passingUse is how long a use of the device may last that is no mount: long
// enough for the look that udev takes at a device after each writer's close.
const passingUse = 3 * time.Second

// stopUnused removes the disk unless somebody has it open. An opener that does
// not hold the device as a mount does is given a moment to finish.
func stopUnused(ctl *ublk.Control, id uint32) error {
	path := ublk.BlockPath(id)
	watch, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return fmt.Errorf("watch %s: %w", path, err)
	}
	defer func() { _ = unix.Close(watch) }()
	// Without a node there is no event; the deadline then bounds the wait.
	_, _ = unix.InotifyAddWatch(watch, path, unix.IN_CLOSE)
	deadline := time.Now().Add(passingUse)
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		err := tryStop(ctl, id)
		if !errors.Is(err, unix.EBUSY) {
			return err
		}
		if isClaimed(path) || time.Now().After(deadline) {
			return fmt.Errorf("remove %s: %w", path, ErrInUse)
		}
		dropEvents(watch) // that of our own look
		event, err := waitEvent(watch, pause)
		if err != nil {
			return err
		}
		if event {
			pause = firstPause
		}
	}
}

// The event of a close comes before the driver knows of the close (__fput in
// fs/file_table.c), and nothing tells of that: so there is another try some
// time after each.
const (
	firstPause   = time.Millisecond
	longestPause = 200 * time.Millisecond
)

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

// waitEvent waits for an inotify event for a time, and reports whether there is
// one.
func waitEvent(fd int, d time.Duration) (bool, error) {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, int(d.Milliseconds()))
	if err != nil && !errors.Is(err, unix.EINTR) {
		return false, os.NewSyscallError("poll", err)
	}
	return n > 0, nil
}

// dropEvents reads what events there are.
func dropEvents(fd int) {
	var buf [4096]byte
	for {
		if n, err := unix.Read(fd, buf[:]); n <= 0 || err != nil {
			return // EAGAIN: no more
		}
	}
}
