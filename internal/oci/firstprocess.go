package oci

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/process"
)

// This file names the first process of a container in a text. A pid alone does not
// identify a process, because another process gets it later.

// processText returns the pid of a process and the time when it started. It returns the
// pid alone if the process has ended, or if there is no /proc.
func processText(pid int) string {
	start, err := process.StartTime(pid)
	if err != nil {
		return fmt.Sprint(pid)
	}
	return fmt.Sprint(pid, " ", start)
}

// processRuns reports whether a process exists. An earlier version of this program has
// written the pid alone. If the start time is not known, a process with the pid is taken
// for this one: then only an empty directory stays longer, but a directory that a running
// container needs must not be removed.
func processRuns(text string) bool {
	var pid int
	var start uint64
	n, _ := fmt.Sscan(text, &pid, &start)
	if n == 0 || pid <= 0 || errors.Is(unix.Kill(pid, 0), unix.ESRCH) {
		return false
	}
	now, err := process.StartTime(pid)
	return n == 1 || now == start || err != nil && process.CheckProc() != nil
}
