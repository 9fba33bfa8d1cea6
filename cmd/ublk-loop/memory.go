package main

import (
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"

	"golang.org/x/sys/unix"
)

// This file keeps a server from waiting for memory: the page that it would
// wait for may be one that its own device has to write first.

// lockMemory keeps in memory what the server has used once, from now on, and
// the program's code, used or not. Large mappings that Go does not use stay
// without memory (MCL_ONFAULT in mlock2(2), Linux 4.4). It needs CAP_IPC_LOCK.
func lockMemory() error {
	if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT); err != nil {
		return fmt.Errorf("lock memory: %w", err)
	}
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		return fmt.Errorf("find the program's code: %w", err)
	}
	defer func() { _ = maps.Close() }()
	start, length, err := findCode(maps)
	if err != nil {
		return err
	}
	_, _, errno := unix.Syscall(unix.SYS_MADVISE, start, length, unix.MADV_POPULATE_READ)
	if errno != 0 && errno != unix.EINVAL { // EINVAL: before Linux 5.14
		return fmt.Errorf("read the program's code: %w", errno)
	}
	return nil
}

// findCode returns where the first mapping that can be executed is, which in a
// static program is its code (proc_pid_maps(5)).
func findCode(maps io.Reader) (start, length uintptr, err error) {
	text, err := io.ReadAll(maps)
	if err != nil {
		return 0, 0, fmt.Errorf("find the program's code: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		var end uintptr
		var mode string
		if n, _ := fmt.Sscanf(line, "%x-%x %s", &start, &end, &mode); n == 3 && mode == "r-xp" {
			return start, end - start, nil
		}
	}
	return 0, 0, fmt.Errorf("find the program's code: %w", unix.ENOENT)
}

// gcLimit is how much memory, in bytes, a server may have before Go collects
// garbage: far more than it uses, since no request makes any.
const gcLimit = 128 << 20

// quietGC ends garbage collection, which Go would otherwise do every two
// minutes though there is no garbage.
func quietGC() {
	debug.FreeOSMemory() // what setting up took
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(gcLimit)
}
