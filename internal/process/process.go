// Package process refers to another process safely, even if its pid may be reused.
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

// ErrNoProc is returned if /proc is not mounted. It wraps ENOENT. Without /proc a running
// process looks like one that has ended.
var ErrNoProc = fmt.Errorf("/proc is not mounted: %w", unix.ENOENT)

// CheckProc returns ErrNoProc if /proc does not describe processes.
func CheckProc() error {
	if _, err := os.Stat("/proc/self/stat"); errors.Is(err, unix.ENOENT) {
		return ErrNoProc
	}
	return nil
}

// StartTime returns when a process started, in clock ticks since boot. Together with the
// pid it identifies the process for ever (proc_pid_stat(5), field 22).
func StartTime(pid int) (uint64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	return parseStartTime(data)
}

// parseStartTime finds field 22. Field 2, the command, may contain spaces and
// parentheses.
func parseStartTime(stat []byte) (uint64, error) {
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 20 {
		return 0, fmt.Errorf("parse process status: %w", unix.EINVAL)
	}
	return strconv.ParseUint(string(fields[19]), 10, 64)
}

// Exists reports whether a process with a pid exists, including a zombie.
func Exists(pid int) bool {
	_, err := StartTime(pid)
	return err == nil
}

// SurvivesShutdown reports whether systemd leaves the process alone when it changes the root
// and when it ends all others at a shutdown: its first argument begins with @, as is usual for
// the server of a root file system (https://systemd.io/ROOT_STORAGE_DAEMONS).
func SurvivesShutdown(pid int) bool {
	args, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return err == nil && len(args) > 0 && args[0] == '@'
}

// Process is a reference to a process that stays valid when the pid is reused.
type Process struct {
	pidfd int
}

// Open returns the process with a pid and a start time, or nil if it has ended.
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

// Wait waits at most d for the end of the process, and reports whether it has ended.
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

// Kill kills the process.
func (p *Process) Kill() error { return unix.PidfdSendSignal(p.pidfd, unix.SIGKILL, nil, 0) }

// Close releases the reference.
func (p *Process) Close() { _ = unix.Close(p.pidfd) }
