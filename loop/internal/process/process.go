// Package process holds on to another process, whose number may be a third one's by
// the time that it is used.
package process

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// ErrNoProc is returned if /proc is not mounted. It wraps ENOENT. Without /proc a
// process that lives looks like a process that has ended.
var ErrNoProc = fmt.Errorf("/proc is not mounted: %w", unix.ENOENT)

// CheckProc returns ErrNoProc if /proc does not describe processes.
func CheckProc() error {
	if _, err := os.Stat("/proc/self/stat"); errors.Is(err, unix.ENOENT) {
		return ErrNoProc
	}
	return nil
}

// StartTime returns when a process began, in clock ticks since boot: with its
// number it names the process for good (proc_pid_stat(5), field 22).
func StartTime(pid int) (uint64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	return parseStartTime(data)
}

// parseStartTime finds field 22 behind the command, field 2, which may hold
// spaces and parentheses.
func parseStartTime(stat []byte) (uint64, error) {
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 20 {
		return 0, fmt.Errorf("parse process status: %w", unix.EINVAL)
	}
	return strconv.ParseUint(string(fields[19]), 10, 64)
}

// Exists reports whether there is a process with a number, be it one that has
// ended and not been waited for.
func Exists(pid int) bool {
	_, err := StartTime(pid)
	return err == nil
}

// Process is a process, held so that its number cannot come to mean another.
type Process struct {
	pidfd int
}

// Open returns the process with a number and a start time, nil when
// there is none any more.
func Open(pid int, start uint64) (*Process, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open process %d: %w", pid, err)
	}
	now, err := StartTime(pid)
	if noProc := CheckProc(); noProc != nil {
		return nil, errors.Join(noProc, unix.Close(fd))
	}
	if err != nil || now != start {
		return nil, unix.Close(fd)
	}
	return &Process{pidfd: fd}, nil
}

// Wait waits for the end of the process, for d at most, and reports whether it
// came.
func (p *Process) Wait(d time.Duration) (bool, error) {
	deadline := time.Now().Add(d)
	for {
		fds := []unix.PollFd{{Fd: int32(p.pidfd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, int(max(0, time.Until(deadline)).Milliseconds()))
		if !errors.Is(err, unix.EINTR) {
			return n > 0, err
		}
	}
}

// Kill ends the process at once.
func (p *Process) Kill() error { return unix.PidfdSendSignal(p.pidfd, unix.SIGKILL, nil, 0) }

// Close lets go of the process.
func (p *Process) Close() { _ = unix.Close(p.pidfd) }
