package loop

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// startTime returns when a process began, in clock ticks since boot: with its
// number it names the process for good (proc_pid_stat(5), field 22).
func startTime(pid int) (uint64, error) {
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

// exists reports whether there is a process with a number, be it one that has
// ended and not been waited for.
func exists(pid int) bool {
	_, err := startTime(pid)
	return err == nil
}

// process is a server, held so that its number cannot come to mean another.
type process struct {
	pidfd int
}

// openProcess returns the process with a number and a start time, nil when
// there is none any more.
func openProcess(pid int, start uint64) (*process, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open process %d: %w", pid, err)
	}
	if now, err := startTime(pid); err != nil || now != start {
		return nil, unix.Close(fd)
	}
	return &process{pidfd: fd}, nil
}

// wait waits for the end of the process, for d at most, and reports whether it
// came.
func (p *process) wait(d time.Duration) (bool, error) {
	deadline := time.Now().Add(d)
	for {
		fds := []unix.PollFd{{Fd: int32(p.pidfd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, int(max(0, time.Until(deadline)).Milliseconds()))
		if !errors.Is(err, unix.EINTR) {
			return n > 0, err
		}
	}
}

// kill ends the process at once.
func (p *process) kill() error { return unix.PidfdSendSignal(p.pidfd, unix.SIGKILL, nil, 0) }

func (p *process) close() { _ = unix.Close(p.pidfd) }
