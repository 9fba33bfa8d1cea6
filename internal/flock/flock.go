// Package flock locks files that other processes lock for a moment only (flock(2)). A process that was stopped keeps its
// lock, so that each wait has a bound, and its error names that process.
package flock

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/eintr"
)

// Exclusive locks a file, until it is closed or unlocked. It returns an error that wraps ETIMEDOUT if another process has
// the lock for longer than patience, which may be over already. The caller then closes the file, because it may get the lock later.
func Exclusive(f *os.File, patience time.Duration) error { return take(f, unix.LOCK_EX, patience) }

// Shared is Exclusive for a lock that others can share.
func Shared(f *os.File, patience time.Duration) error { return take(f, unix.LOCK_SH, patience) }

func take(f *os.File, how int, patience time.Duration) error {
	patience = max(patience, 0)
	err := eintr.Repeat(func() error { return unix.Flock(int(f.Fd()), how|unix.LOCK_NB) })
	if !errors.Is(err, unix.EWOULDBLOCK) {
		return named(f, err)
	}
	id, err := idOf(f)
	if err != nil {
		return named(f, err)
	}
	if isAbandoned(id) {
		return named(f, poll(f, how, patience))
	}
	// The caller may close the file before the goroutine ends. A descriptor of its own keeps it from another file with
	// the same number. Closing one of two descriptors keeps the lock (flock(2)).
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return named(f, err)
	}
	locked := make(chan error, 1)
	w := &wait{id: id}
	go func() { // until the lock is free, if the caller does not wait for that
		err := eintr.Repeat(func() error { return unix.Flock(fd, how) })
		locked <- errors.Join(err, unix.Close(fd))
		w.end()
	}()
	select {
	case err := <-locked:
		return named(f, err)
	case <-time.After(patience):
		w.abandon()
		return named(f, late(f, patience))
	}
}

func late(f *os.File, patience time.Duration) error {
	return fmt.Errorf("%s has it for %s: %w", holder(f), patience.Round(time.Millisecond), unix.ETIMEDOUT)
}

func named(f *os.File, err error) error {
	if err != nil {
		return fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	return nil
}

// holder names the process that has a lock on a file, if it is known (proc_locks(5)).
func holder(f *os.File) string {
	var st unix.Stat_t
	locks, err := os.ReadFile("/proc/locks")
	if err := errors.Join(err, unix.Fstat(int(f.Fd()), &st)); err != nil {
		return "another process"
	}
	file := fmt.Sprintf("%02x:%02x:%d", unix.Major(st.Dev), unix.Minor(st.Dev), st.Ino)
	for line := range strings.Lines(string(locks)) {
		if fields := strings.Fields(line); len(fields) > 5 && fields[1] == "FLOCK" && fields[5] == file {
			return "process " + fields[4]
		}
	}
	return "another process"
}
