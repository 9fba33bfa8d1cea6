package udev

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// lookTime is the maximum time for which a use other than a mount may be udev's. After
// each writer's close, udev opens the device for less time than that.
const lookTime = 3 * time.Second

// The event of a close comes before the driver learns of the close (__fput in
// fs/file_table.c), and no event announces that. Therefore OutlastLook tries again some
// time after each event.
const (
	firstLookPause   = time.Millisecond
	longestLookPause = 200 * time.Millisecond
)

// OutlastLook calls try, which needs a closed device, until try does not return EBUSY. It
// gives up and returns EBUSY after lookTime, because udev would have closed the device by
// then. It gives up at once if isHeld reports a longer use, such as a mount.
func OutlastLook(path string, try func() error, isHeld func() bool) error {
	watch, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return &os.PathError{Op: "watch", Path: path, Err: err}
	}
	defer func() { _ = unix.Close(watch) }()
	// Without a node there are no events, and only the deadline bounds the wait.
	_, _ = unix.InotifyAddWatch(watch, path, unix.IN_CLOSE)
	deadline := time.Now().Add(lookTime)
	for pause := firstLookPause; ; pause = min(2*pause, longestLookPause) {
		err := try()
		if !errors.Is(err, unix.EBUSY) || isHeld() || time.Now().After(deadline) {
			return err
		}
		dropEvents(watch) // the event of our own open
		event, err := waitEvent(watch, pause)
		if err != nil {
			return err
		}
		if event {
			pause = firstLookPause
		}
	}
}

// waitEvent waits at most d for an inotify event, and reports whether there is one.
func waitEvent(fd int, d time.Duration) (bool, error) {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, int(d.Milliseconds()))
	if err != nil && !errors.Is(err, unix.EINTR) {
		return false, os.NewSyscallError("poll", err)
	}
	return n > 0, nil
}

// dropEvents reads all pending events.
func dropEvents(fd int) {
	var buf [4096]byte
	for {
		if n, err := unix.Read(fd, buf[:]); n <= 0 || err != nil {
			return // EAGAIN: no more events
		}
	}
}
