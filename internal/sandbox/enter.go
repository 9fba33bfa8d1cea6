package sandbox

import (
	"errors"
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Enter gives up everything that a process of Start still has, for all threads. The process can make only
// the given system calls. Enter returns an error if a protection fails that the kernel has.
func Enter(calls []uintptr) error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("switch core dumps off: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("make the process undumpable: %w", err)
	}
	if err := dropInheritable(); err != nil {
		return err
	}
	if err := denyFiles(); err != nil && !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	return limitCalls(calls)
}

// dropInheritable drops the capabilities that the process could inherit, which are the last.
func dropInheritable() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&none[0])), 0)
	if errno == unix.ENOTSUP {
		return fmt.Errorf("drop inheritable capabilities: the program is built with cgo, not with CGO_ENABLED=0: %w", errno)
	}
	if errno != 0 {
		return fmt.Errorf("drop inheritable capabilities: %w", errno)
	}
	return nil
}
