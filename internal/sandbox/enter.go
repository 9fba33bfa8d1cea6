package sandbox

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Enter gives up everything that a process of Start still has, for all threads. The process can make only
// the given system calls. Enter returns an error if a protection fails that the kernel has.
func Enter(calls []uintptr) error {
	if err := giveUp(); err != nil {
		return err
	}
	return limitCalls(calls)
}

// EnterAsking is Enter for a process that gets its rings from its starter. The descriptors are for the starter's RingServer.
// The error wraps EBUSY if a program outside already answers system calls of this process. Then Enter is possible.
func EnterAsking(calls []uintptr) (*RingClient, RingServerFDs, error) {
	if err := giveUp(); err != nil {
		return nil, RingServerFDs{}, err
	}
	if err := mayMakeRings(); err != nil {
		return nil, RingServerFDs{}, err
	}
	var layouts [2]int
	if err := unix.Pipe2(layouts[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return nil, RingServerFDs{}, os.NewSyscallError("pipe2", err)
	}
	listener, err := askForRings()
	if err != nil {
		return nil, RingServerFDs{}, errors.Join(err, unix.Close(layouts[0]), unix.Close(layouts[1]))
	}
	fds := RingServerFDs{listener, layouts[1]}
	if err := limitCalls(calls); err != nil {
		return nil, RingServerFDs{}, errors.Join(err, unix.Close(layouts[0]), fds.Close())
	}
	return &RingClient{layouts: layouts[0]}, fds, nil
}

// mayMakeRings returns an error if the kernel makes no rings for this process (kernel.io_uring_disabled). The starter is asked for
// rings only if this process could make them, because its privileges must not be a way around that setting.
func mayMakeRings() error {
	// The kernel looks at the setting before it reads the arguments, which are nowhere (io_uring_setup in io_uring/io_uring.c).
	_, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, 0, 0)
	if errno == unix.EFAULT {
		return nil
	}
	return os.NewSyscallError("io_uring_setup", errno)
}

// giveUp gives up all but system calls.
func giveUp() error {
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
	return nil
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
