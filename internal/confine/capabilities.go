package confine

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// keptCapabilities are the capabilities that a server needs: the first for the driver's
// commands, the second for registered buffers of more than RLIMIT_MEMLOCK, the third for
// a backing file of another owner.
var keptCapabilities = []int{unix.CAP_SYS_ADMIN, unix.CAP_IPC_LOCK, unix.CAP_DAC_OVERRIDE}

// dropCapabilities drops all capabilities of the calling thread except keep, also for the
// programs that the thread executes. A program of root gets the capabilities of the
// bounding set, a program of another user gets the ambient ones (capabilities(7)).
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
