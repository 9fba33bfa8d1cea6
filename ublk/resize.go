package ublk

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk/uapi"
)

// UpdateSize gives the disk of device id a new size in bytes, a multiple of 512,
// while it is in use (UBLK_U_CMD_UPDATE_SIZE, Linux 6.16). Whoever has it open
// sees the new size at once, and the kernel sends a uevent. The driver takes any
// size: the caller makes sure that it is a multiple of the logical block size,
// and that the server has as much. Any process with CAP_SYS_ADMIN may send the
// command; the server has no part in it (ublk_ctrl_uring_cmd_permission and
// ublk_ctrl_set_size in drivers/block/ublk_drv.c).
//
// It returns an error that wraps ErrNotSupported where the driver has no such
// command, and ENODEV for a device that has no disk: that is found out before,
// since drivers before Linux 7.0 crash over it.
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
