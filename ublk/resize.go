package ublk

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk/uapi"
)

// UpdateSize changes the size of the disk of device id while it is in use
// (UBLK_U_CMD_UPDATE_SIZE, Linux 6.16). size is in bytes, a multiple of 512. Programs that
// have the disk open see the new size at once, and the kernel sends a uevent. The driver
// accepts any size, so the caller ensures that it is a multiple of the logical block size, and
// that the server has as many bytes. Any process with CAP_SYS_ADMIN may send the command, and
// the server takes no part in it (ublk_ctrl_uring_cmd_permission and ublk_ctrl_set_size in
// drivers/block/ublk_drv.c).
//
// UpdateSize returns an error that wraps ErrNotSupported if the driver lacks the command, and
// ENODEV if the device has no disk. It checks for the disk first, because drivers before Linux
// 7.0 crash without one.
func (c *Control) UpdateSize(id uint32, size uint64) error {
	if size%(1<<sectorShift) != 0 {
		return fmt.Errorf("resize device %d: %d bytes: not a multiple of 512: %w", id, size, unix.EINVAL)
	}
	info, err := c.Info(id)
	if err != nil {
		return err
	}
	if info.State == StateDead {
		return fmt.Errorf("resize device %d: it has no disk: %w", id, unix.ENODEV)
	}
	err = c.device("resize", id, Command{Op: uapi.UBLK_U_CMD_UPDATE_SIZE, Data: size >> sectorShift, Timeout: commandTimeout})
	if isNotSupported(err) {
		return fmt.Errorf("resize device %d: %w", id, ErrNotSupported)
	}
	return err
}
