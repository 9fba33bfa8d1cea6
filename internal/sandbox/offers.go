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
		{"limits of rings", ring.HasTaskRestrictions() == nil, "the process of serve can make sockets by a ring, which reach virtual machines' hosts and the kernel's ciphers"},
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

// makesRings reports whether the kernel makes rings for processes without privileges. A kernel before
// Linux 6.6 has no such setting.
func makesRings() bool {
	text, err := os.ReadFile("/proc/sys/kernel/io_uring_disabled")
	return err != nil || strings.TrimSpace(string(text)) == "0"
}
