package sandbox

import (
	"os"
	"path/filepath"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ring"
)

// Part is a part of the sandbox that a kernel may lack.
type Part struct {
	Name    string
	Offered bool
	Without string // the effect if it is missing
}

// Parts returns what the running kernel has. A caller without privileges gets the same result.
func Parts() []Part {
	_, landlock := landlockVersion()
	return []Part{
		{"namespaces", hasNamespaces("/proc/self/ns"), "the server serves requests itself, with its privileges"},
		{"landlock", landlock == nil, "only the empty root directory keeps the process from files"},
		{"seccomp", hasFilters(), "the server serves requests itself, with its privileges"},
		{"limits of rings", limitsRings(), "the process can make sockets by a ring, which reach virtual machines' hosts and the kernel's ciphers"},
		{"unprivileged rings", makesRings(), "the server serves requests itself, with its privileges (kernel.io_uring_disabled)"},
	}
}

// hasNamespaces reports whether the kernel has the namespaces of Start. A directory in /proc shows them.
func hasNamespaces(dir string) bool {
	for _, name := range []string{"mnt", "net", "ipc", "uts"} {
		if _, err := os.Lstat(filepath.Join(dir, name)); err != nil {
			return false
		}
	}
	return true
}

// hasFilters reports whether the kernel limits system calls.
func hasFilters() bool {
	action := uint32(unix.SECCOMP_RET_ERRNO)
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_GET_ACTION_AVAIL, 0, uintptr(unsafe.Pointer(&action)))
	return errno == 0
}

// limitsRings reports whether the kernel limits all rings of a process, or lets its starter make them (askForRings).
func limitsRings() bool {
	if ring.HasTaskRestrictions() == nil {
		return true
	}
	// The kernel looks at the flags before it reads the program, which is nowhere (seccomp_set_mode_filter in kernel/seccomp.c).
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, asks, 0)
	return errno == unix.EFAULT
}

// makesRings reports whether the kernel makes rings for processes without privileges. A kernel before
// Linux 6.6 has no such setting.
func makesRings() bool {
	text, err := os.ReadFile("/proc/sys/kernel/io_uring_disabled")
	return err != nil || strings.TrimSpace(string(text)) == "0"
}
