// Package ublktest helps to test ublk and the packages that are built on it.
package ublktest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk"
)

// Kernel says that a test needs the ublk driver, root and the listed needs. It skips the
// test if one of them is missing, and says which. If the runner of the tests promises a
// driver, it fails the test instead. At its end the test fails if it has left a device, a
// descriptor, a state file or a complaint of the kernel, or if the kernel has logged a system call that
// the sandbox of a server refused (Provokes). Kernel returns a Control for the test.
func Kernel(t testing.TB, needs ...Need) *ublk.Control {
	t.Helper()
	Require(t, needs...)
	before := leftovers(t)
	ctl, err := ublk.OpenControl()
	if err != nil {
		skip := t.Skipf
		if _, promised := os.LookupEnv(hasVariable); promised {
			skip = t.Fatalf
		}
		skip("no ublk here: %v", err)
	}
	log := openKernelLog(t)
	before[openFiles] = append(before[openFiles], kernelLog)
	t.Cleanup(func() {
		if err := ctl.Close(); err != nil { // also what it keeps for further commands
			t.Errorf("close control: %v", err)
		}
		checkNothingLeft(t, before)
		checkKernelLog(t, log)
	})
	return ctl
}

const (
	openFiles = "file descriptor" // of leftovers
	kernelLog = "/dev/kmsg"
)

// leftovers lists the things that a test must not leave behind.
func leftovers(t testing.TB) map[string][]string {
	t.Helper()
	found := map[string][]string{}
	for what, pattern := range map[string]string{
		"device":     "/sys/class/ublk-char/*",
		"disk":       "/sys/block/ublkb*",
		"node":       "/dev/ublk[bc]*",
		openFiles:    "/proc/self/fd/*",
		"state file": "/run/ublk-loop/*.json",
	} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		if what == openFiles {
			paths = targets(paths)
		}
		found[what] = paths
	}
	return found
}

// targets returns the names of the files that descriptors are open on. It omits Go's own
// descriptors, which Go opens when it first needs them.
func targets(fds []string) []string {
	var names []string
	for _, fd := range fds {
		name, err := os.Readlink(fd)
		if err == nil && !strings.Contains(name, "[eventpoll]") && !strings.HasPrefix(name, "/proc/") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// checkNothingLeft compares the leftovers with those before the test. The kernel releases
// some a moment after the last close, which causes no event.
func checkNothingLeft(t testing.TB, before map[string][]string) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		var left []string
		for what, now := range leftovers(t) {
			if was := before[what]; len(now) > len(was) {
				left = append(left, fmt.Sprintf("%s: %q, before: %q", what, now, was))
			}
		}
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("left behind:\n%s", strings.Join(left, "\n"))
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// openKernelLog opens the kernel's log at its end.
func openKernelLog(t testing.TB) int {
	t.Helper()
	fd, err := unix.Open(kernelLog, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatalf("open the kernel's log: %v", err)
	}
	if _, err := unix.Seek(fd, 0, unix.SEEK_END); err != nil {
		t.Fatalf("seek in the kernel's log: %v", err)
	}
	return fd
}

// complaints are texts that a healthy kernel does not log.
var complaints = []string{"WARNING:", "BUG:", "Oops", "blocked for more than", "general protection", "UBSAN", "KASAN", "use-after-free"}

// IsComplaint reports whether a line of the kernel's log shows a fault of the kernel.
func IsComplaint(line string) bool {
	return slices.ContainsFunc(complaints, func(c string) bool { return strings.Contains(line, c) })
}

func checkKernelLog(t testing.TB, fd int) {
	t.Helper()
	defer func() { _ = unix.Close(fd) }()
	check := func(line string) {
		if IsComplaint(line) {
			t.Errorf("kernel log: %s", line)
		}
	}
	wanted, provokes := provoked[t.Name()]
	if !provokes {
		readKernelLog(fd, func(line string) {
			check(line)
			if call := refusedCall(line); call != "" {
				t.Errorf("the sandbox refused the system call %s (internal/sandbox/syscalls.go): %s", call, line)
			}
		})
		return
	}
	found := !logsRefused()
	Until(t, 20*time.Second, "the kernel's log has that the sandbox refused "+wanted, func() bool {
		readKernelLog(fd, func(line string) {
			check(line)
			found = found || refusedCall(line) == wanted
		})
		return found
	})
}

// readKernelLog calls a function for each new record of the kernel's log.
func readKernelLog(fd int, each func(line string)) {
	record := make([]byte, 8192)
	for {
		n, err := unix.Read(fd, record)
		if errors.Is(err, unix.EPIPE) {
			continue // new records have overwritten old ones
		}
		if err != nil {
			return // EAGAIN: the end
		}
		each(string(record[:n]))
	}
}
