package ublk

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// openCharTimeout bounds the wait for another process, such as udev, that has a new
// /dev/ublkcN open. The driver allows one opener at a time.
const openCharTimeout = 10 * time.Second

// openChar opens a device's character device to serve it. If another process has it open,
// openChar waits for the close.
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

// openCharWhenFree tries to open the device at each event in its directory: a creation,
// because udev or mdev may make the node, and a close. The driver frees the device some time
// after the close, without an event, so each wait for an event is short.
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

// waitReadable waits at most d for an inotify event, and drops it.
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
