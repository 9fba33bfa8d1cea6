package udev

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// lookTime is how long a use of a device may last that is no mount: long enough for the
// look that udev takes at a device after each writer's close.
const lookTime = 3 * time.Second

// The event of a close comes before the driver knows of the close (__fput in
// fs/file_table.c), and nothing tells of that: so there is another try some time after
// each event.
const (
	firstLookPause   = time.Millisecond
	longestLookPause = 200 * time.Millisecond
)

// OutlastLook calls a function that needs a device to be closed, until it does not return
// EBUSY. It gives up, with EBUSY, when udev would have closed the device, or as soon as the
// device is held for longer, as by a mount.
func OutlastLook(path string, try func() error, isHeld func() bool) error {
	watch, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return &os.PathError{Op: "watch", Path: path, Err: err}
	}
	defer func() { _ = unix.Close(watch) }()
	// Without a node there is no event; the deadline then bounds the wait.
	_, _ = unix.InotifyAddWatch(watch, path, unix.IN_CLOSE)
	deadline := time.Now().Add(lookTime)
	for pause := firstLookPause; ; pause = min(2*pause, longestLookPause) {
		err := try()
		if !errors.Is(err, unix.EBUSY) || isHeld() || time.Now().After(deadline) {
			return err
		}
		dropEvents(watch) // that of our own look
		event, err := waitEvent(watch, pause)
		if err != nil {
			return err
		}
		if event {
			pause = firstLookPause
		}
	}
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
