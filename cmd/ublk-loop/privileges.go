package main

import (
	"errors"
	"fmt"
	"math"
	"os"

	"golang.org/x/sys/unix"
)

// keptCapabilities are what a server needs: the first for the driver's
// commands, the second for registered buffers of more than RLIMIT_MEMLOCK, the
// third for a backing file of another owner.
var keptCapabilities = []int{unix.CAP_SYS_ADMIN, unix.CAP_IPC_LOCK, unix.CAP_DAC_OVERRIDE}

// confine makes of the calling thread what a server starts as: its program is
// then executed by the thread or a child of it, and inherits all of it in each
// of its threads, which Go starts before main. The caller has locked the
// thread, and lets it end. Warnings are of protections that cannot be had.
func confine() (warnings []string, err error) {
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return nil, fmt.Errorf("leave the working directory: %w", err)
	}
	if err := unshareMounts(); err != nil {
		return nil, err
	}
	if err := unix.Chdir("/"); err != nil {
		return nil, fmt.Errorf("change to /: %w", err)
	}
	unix.Umask(0o077)
	// The memory that the server allocates must not be waited for by writes
	// to its own device (Linux 5.6; needs CAP_SYS_RESOURCE).
	if err := unix.Prctl(unix.PR_SET_IO_FLUSHER, 1, 0, 0, 0); err != nil {
		warnings = append(warnings, fmt.Sprintf("not an I/O flusher, may deadlock without free memory: %v", err))
	}
	// Go's heap would begin with a huge page, 2 MiB of which a server uses a
	// part. Buffers ask for theirs (Linux 6.18, before which nothing changes).
	_ = unix.Prctl(unix.PR_SET_THP_DISABLE, 1, unix.PR_THP_DISABLE_EXCEPT_ADVISED, 0, 0)
	if err := unblockSignals(); err != nil {
		return nil, err
	}
	if err := dropCapabilities(keptCapabilities); err != nil {
		return nil, err
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("set no_new_privs: %w", err)
	}
	return warnings, nil
}

// protectFromOOM keeps the OOM killer from a process: killing a server would
// free little, and fail the I/O of all that use its device. It returns a
// warning where that cannot be had (it needs CAP_SYS_RESOURCE).
func protectFromOOM(pid int) []string {
	err := os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid), []byte("-1000"), 0)
	if err != nil {
		return []string{fmt.Sprintf("not safe from the OOM killer: %v", err)}
	}
	return nil
}

// closeInherited has what the caller left open closed by the next exec, be it
// a lock or the other end of somebody's pipe.
func closeInherited() error {
	if err := unix.CloseRange(3, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("mark descriptors: %w", err)
	}
	return nil
}

func unblockSignals() error {
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &unix.Sigset_t{}, nil); err != nil {
		return fmt.Errorf("unblock signals: %w", err)
	}
	return nil
}

// dropCapabilities leaves the thread, and what it executes, no capabilities
// but some. A program that root executes gets those of the bounding set, that
// of another user the ambient ones (capabilities(7)).
func dropCapabilities(keep []int) error {
	if err := dropBoundingSet(keep); err != nil {
		return err
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	if err := unix.Capget(&header, &sets[0]); err != nil {
		return fmt.Errorf("get capabilities: %w", err)
	}
	var kept [2]uint32
	for _, c := range keep {
		kept[c/32] |= 1 << (c % 32)
	}
	for i := range sets {
		has := sets[i].Permitted & kept[i]
		sets[i] = unix.CapUserData{Effective: has, Permitted: has, Inheritable: has}
	}
	if err := unix.Capset(&header, &sets[0]); err != nil {
		return fmt.Errorf("set capabilities: %w", err)
	}
	for _, c := range keep {
		if sets[c/32].Permitted&(1<<(c%32)) == 0 {
			continue
		}
		if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, uintptr(c), 0, 0); err != nil {
			return fmt.Errorf("raise ambient capability %d: %w", c, err)
		}
	}
	return nil
}

// dropBoundingSet empties the bounding set but for some. The kernel says with
// EINVAL where its capabilities end. A caller without CAP_SETPCAP, such as a
// container's root, has been limited by somebody else.
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
