package ublk

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Before Linux 7.0 a device cannot be told to come without a partition scan,
// and up to 6.18 the scan is part of START_DEV: reads of the new disk by a
// worker thread of the server itself, which holds the device's lock meanwhile.
// A server that is killed then may hang for good. The driver does not scan a
// disk for a server that it cannot trust, however, and trusts a task that has
// CAP_SYS_ADMIN when it fetches (ublk_mark_io_ready in
// drivers/block/ublk_drv.c).

// loseTrust takes CAP_SYS_ADMIN from the calling thread, and from no other.
// Nothing that a queue does from its first fetch on needs it.
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
