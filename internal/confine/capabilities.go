package confine

import (
	"errors"
	"fmt"
	"slices"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// keptCapabilities are the capabilities that a server needs: the first for the driver's
// commands, the second for registered buffers of more than RLIMIT_MEMLOCK, the third for
// a backing file of another owner.
var keptCapabilities = [...]int{unix.CAP_SYS_ADMIN, unix.CAP_IPC_LOCK, unix.CAP_DAC_OVERRIDE}

// killCapability lets the end of a server end a process of another user that it has started. The kernel
// checks that the server may signal it (forget_original_parent in kernel/exit.c).
const killCapability = unix.CAP_KILL

// startingCapabilities are those that a server needs to start a process without privileges, until
// DropStarting. They are not in its bounding set.
var startingCapabilities = []int{unix.CAP_SETUID, unix.CAP_SETGID, unix.CAP_SETPCAP}

// DropStarting drops the startingCapabilities from all threads.
func DropStarting() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	if err := unix.Capget(&header, &sets[0]); err != nil {
		return fmt.Errorf("get capabilities: %w", err)
	}
	for _, c := range startingCapabilities {
		for _, set := range []*uint32{&sets[0].Effective, &sets[0].Permitted, &sets[0].Inheritable} {
			*set &^= 1 << c
		}
	}
	// capset(2) reads the variables. They do not move during the call, because AllThreadsSyscall is
	// marked with go:uintptrescapes (pattern 4 of unsafe.Pointer).
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&sets[0])), 0)
	if errno == unix.ENOTSUP {
		return fmt.Errorf("set capabilities: the program is built with cgo, not with CGO_ENABLED=0: %w", errno)
	}
	if errno != 0 {
		return fmt.Errorf("set capabilities: %w", errno)
	}
	return nil
}

// dropCapabilities drops all capabilities of the calling thread except keep and start, also for
// the program that the thread executes. The programs that this executes get only keep. A program
// of root gets the capabilities of the bounding set and the inheritable ones, a program of
// another user gets the ambient ones (capabilities(7)).
func dropCapabilities(keep, start []int) error {
	both := slices.Concat(keep, start)
	if err := dropBoundingSet(both); err != nil {
		return err
	}
	has, err := limitCapabilities(both)
	if err != nil {
		return err
	}
	for _, c := range both {
		if has[c/32]&(1<<(c%32)) == 0 {
			continue
		}
		if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, uintptr(c), 0, 0); err != nil {
			return fmt.Errorf("raise ambient capability %d: %w", c, err)
		}
	}
	if len(start) == 0 {
		return nil // and without CAP_SETPCAP
	}
	return dropBoundingSet(keep)
}

// limitCapabilities drops all capabilities except keep, and makes those inheritable. It returns
// what the thread has of them.
func limitCapabilities(keep []int) (has [2]uint32, err error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	if err := unix.Capget(&header, &sets[0]); err != nil {
		return has, fmt.Errorf("get capabilities: %w", err)
	}
	for _, c := range keep {
		has[c/32] |= 1 << (c % 32)
	}
	for i := range sets {
		has[i] &= sets[i].Permitted
		sets[i] = unix.CapUserData{Effective: has[i], Permitted: has[i], Inheritable: has[i]}
	}
	if err := unix.Capset(&header, &sets[0]); err != nil {
		return has, fmt.Errorf("set capabilities: %w", err)
	}
	return has, nil
}

// dropBoundingSet drops all capabilities of the bounding set except keep. The kernel
// returns EINVAL for the first number that is not a capability. A caller without
// CAP_SETPCAP, such as a container's root, already runs with limited capabilities.
func dropBoundingSet(keep []int) error {
	kept := map[int]bool{}
	for _, c := range keep {
		kept[c] = true
	}
	for c := 0; ; c++ {
		if kept[c] {
			continue
		}
		err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0)
		switch {
		case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EPERM):
			return nil
		case err != nil:
			return fmt.Errorf("drop capability %d: %w", c, err)
		}
	}
}
