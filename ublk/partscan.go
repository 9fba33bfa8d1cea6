package ublk

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Before Linux 7.0 the driver has no flag against the partition scan of a new disk. Up to
// 6.18 the scan is part of START_DEV: a worker thread of the server reads from the disk and
// holds the device's lock. A server that is killed during the scan can hang for good. But
// the driver does not scan the disk of a server that it does not trust, and it trusts a task
// only if the task has CAP_SYS_ADMIN when it fetches (ublk_mark_io_ready in
// drivers/block/ublk_drv.c).

// loseTrust drops CAP_SYS_ADMIN from the calling thread, and from no other thread. A queue
// does not need it from its first fetch on.
func loseTrust() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData // capabilities 0 to 31, and 32 to 63
	if err := unix.Capget(&header, &sets[0]); err != nil {
		return fmt.Errorf("get capabilities: %w", err)
	}
	const admin = uint32(1) << unix.CAP_SYS_ADMIN
	sets[0].Effective &^= admin
	sets[0].Permitted &^= admin
	sets[0].Inheritable &^= admin
	if err := unix.Capset(&header, &sets[0]); err != nil {
		return fmt.Errorf("set capabilities: %w", err)
	}
	return nil
}
