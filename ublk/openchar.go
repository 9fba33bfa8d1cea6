package ublk

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// openCharTimeout bounds how long another process, such as udev, may keep a
// new /dev/ublkcN open, which has one opener at a time.
const openCharTimeout = 10 * time.Second

// openChar opens a device's character device to serve it. Where somebody has
// it open it waits for the close.
func openChar(path string) (int, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.EBUSY) || errors.Is(err, unix.ENOENT) {
		fd, err = openCharWhenFree(path)
	}
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", path, err)
	}
	return fd, nil
}

// openCharWhenFree tries again at each event of the directory's entries: that
// of the creation, where something other than the kernel makes the nodes, and
// that of a close. The driver frees the device only some time after the latter,
// of which there is no event, so the wait for one is short.
func openCharWhenFree(path string) (int, error) {
	watch, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return -1, err
	}
	defer func() { _ = unix.Close(watch) }()
	if _, err := unix.InotifyAddWatch(watch, filepath.Dir(path), unix.IN_CREATE|unix.IN_CLOSE); err != nil {
		return -1, err
	}
	deadline := time.Now().Add(openCharTimeout)
	for {
		fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
		retry := errors.Is(err, unix.EBUSY) || errors.Is(err, unix.ENOENT)
		if !retry || time.Now().After(deadline) {
			return fd, err
		}
		if err := waitReadable(watch, 20*time.Millisecond); err != nil {
			return -1, err
		}
	}
}

// waitReadable waits for an inotify event, for d at most, and drops it.
func waitReadable(fd int, d time.Duration) error {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	if _, err := unix.Poll(fds, int(d.Milliseconds())); err != nil && !errors.Is(err, unix.EINTR) {
		return err
	}
	var buf [4096]byte
	if _, err := unix.Read(fd, buf[:]); err != nil && !errors.Is(err, unix.EAGAIN) {
		return err
	}
	return nil
}
