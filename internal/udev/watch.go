package udev

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/eintr"
)

// dirWatch waits for files in a directory that are made or closed.
type dirWatch struct {
	dir    string
	events *os.File // of inotify(7); nil until needed, because closing it takes milliseconds
}

// start begins to watch the directory.
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

// firstPause is the first pause before another try without an event. The event of a close
// comes before the kernel has released the closed file (__fput in fs/file_table.c), and
// no event announces the release.
const firstPause = time.Millisecond

// until calls try until it returns nil or an error that is not one of passing. It calls
// try again at each event, and from time to time after an event, for at most openTimeout.
func (w *dirWatch) until(ctx context.Context, try func() error, passing ...error) error {
	passes := func(err error) bool {
		return slices.ContainsFunc(passing, func(p error) bool { return errors.Is(err, p) })
	}
	if err := eintr.Repeat(try); !passes(err) {
		return err
	}
	if err := w.start(); err != nil {
		return err
	}
	deadline := time.Now().Add(openTimeout)
	for pause := firstPause; ; pause *= 2 {
		err := eintr.Repeat(try)
		if !passes(err) {
			return err
		}
		event := w.wait(ctx, min(pause, time.Until(deadline)))
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case time.Now().After(deadline):
			return err
		case event:
			pause = firstPause
		}
	}
}

// wait waits at most d for an event, drops it, and reports whether there was one.
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
