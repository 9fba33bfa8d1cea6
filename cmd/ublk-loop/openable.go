package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// openTimeout bounds how long the nodes of a new device may take to come,
// where something other than the kernel makes them, and how long somebody may
// keep the kernel from looking for partitions.
const openTimeout = 10 * time.Second

// openDevice opens a new device once, so that others can, and has the kernel
// look for partitions first if that is wanted: when it returns, their nodes
// are there. A server must not call it for its own device.
func openDevice(ctx context.Context, path string, scan bool) error {
	w := &dirWatch{dir: filepath.Dir(path)}
	defer w.close()
	fd := -1
	err := w.until(ctx, func() error {
		var err error
		fd, err = unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		return err
	}, unix.ENOENT)
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	defer func() { _ = unix.Close(fd) }()
	if !scan {
		return nil
	}
	return scanPartitions(ctx, w, fd, path)
}

// scanPartitions has the kernel read the partition table. EBUSY says that
// somebody has a partition open, so they have been found already, or that he
// claims all of the device, until he closes it.
func scanPartitions(ctx context.Context, w *dirWatch, fd int, path string) error {
	name := filepath.Base(path)
	err := w.until(ctx, func() error {
		_, err := unix.IoctlRetInt(fd, unix.BLKRRPART)
		if errors.Is(err, unix.EBUSY) && len(partitions(name)) > 0 {
			return nil
		}
		return err
	}, unix.EBUSY)
	if err != nil {
		return fmt.Errorf("scan partitions of %s: %w", path, err)
	}
	for _, p := range partitions(name) {
		node := filepath.Join(filepath.Dir(path), p)
		if err := w.until(ctx, func() error { return unix.Access(node, unix.F_OK) }, unix.ENOENT); err != nil {
			return fmt.Errorf("find partition %s: %w", node, err)
		}
	}
	return nil
}

// partitions returns the names of a disk's partitions.
func partitions(disk string) []string {
	paths, err := filepath.Glob("/sys/block/" + disk + "/" + disk + "p*")
	if err != nil {
		return nil
	}
	for i := range paths {
		paths[i] = filepath.Base(paths[i])
	}
	return paths
}

// dirWatch is woken when something in a directory is made or closed.
type dirWatch struct {
	dir    string
	events *os.File // of inotify(7), nil before they are needed: to close it takes milliseconds
}

// start has events come from now on.
func (w *dirWatch) start() error {
	if w.events != nil {
		return nil
	}
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return fmt.Errorf("watch %s: %w", w.dir, err)
	}
	if _, err := unix.InotifyAddWatch(fd, w.dir, unix.IN_CREATE|unix.IN_ATTRIB|unix.IN_CLOSE); err != nil {
		_ = unix.Close(fd)
		return fmt.Errorf("watch %s: %w", w.dir, err)
	}
	w.events = os.NewFile(uintptr(fd), w.dir)
	return nil
}

func (w *dirWatch) close() {
	if w.events != nil {
		_ = w.events.Close()
	}
}

// firstPause is how soon something is tried again without an event: that of a
// close comes before the kernel has let go of what was closed (__fput in
// fs/file_table.c), and nothing tells of that.
const firstPause = time.Millisecond

// until tries something, and for as long as it returns a given error again at
// each event, and from time to time after one, not longer than openTimeout.
func (w *dirWatch) until(ctx context.Context, try func() error, passing error) error {
	if err := ignoreEINTR(try); !errors.Is(err, passing) {
		return err
	}
	if err := w.start(); err != nil {
		return err
	}
	deadline := time.Now().Add(openTimeout)
	for pause := firstPause; ; pause *= 2 {
		err := ignoreEINTR(try)
		if !errors.Is(err, passing) {
			return err
		}
		event := w.wait(ctx, min(pause, time.Until(deadline)))
		switch {
		case ctx.Err() != nil:
			return whyDone(ctx)
		case time.Now().After(deadline):
			return err
		case event:
			pause = firstPause
		}
	}
}

// wait waits for an event for a time, drops it, and reports whether there was
// one.
func (w *dirWatch) wait(ctx context.Context, d time.Duration) bool {
	if err := w.events.SetReadDeadline(time.Now().Add(d)); err != nil {
		return false
	}
	stop := context.AfterFunc(ctx, func() { _ = w.events.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	var buf [4096]byte
	_, err := w.events.Read(buf[:])
	return err == nil
}
