package ublk

import (
	"errors"
	"fmt"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk/uapi"
)

// This file has one method for each control command. Its unsafe casts turn a struct of
// package uapi, which has no pointers, into the bytes of a Command.

// bytesOf returns the bytes of v, which must hold no pointer.
func bytesOf[T any](v *T) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(v)), unsafe.Sizeof(*v))
}

func (c *Control) device(what string, id uint32, cmd Command) error {
	cmd.DevID, cmd.QueueID = id, noQueue
	if err := c.do(cmd); err != nil {
		return fmt.Errorf("%s device %d: %w", what, id, err)
	}
	return nil
}

// addDev is UBLK_U_CMD_ADD_DEV. The driver changes info to what it granted.
func (c *Control) addDev(info *uapi.CtrlDevInfo) error {
	cmd := Command{Op: uapi.UBLK_U_CMD_ADD_DEV, DevID: info.DevID, QueueID: noQueue, Buf: bytesOf(info), Timeout: commandTimeout}
	return wrap("add device", c.do(cmd))
}

// Info returns what the driver reports about device id. It returns an error that wraps
// ENODEV if there is no such device.
func (c *Control) Info(id uint32) (Info, error) {
	var info uapi.CtrlDevInfo
	err := c.device("get information on", id,
		Command{Op: uapi.UBLK_U_CMD_GET_DEV_INFO, Buf: bytesOf(&info), Timeout: commandTimeout})
	if err != nil {
		return Info{}, err
	}
	return infoOf(&info), nil
}

// setParams is UBLK_U_CMD_SET_PARAMS. The driver takes it until the device starts.
func (c *Control) setParams(id uint32, p *uapi.Params) error {
	p.Len = uint32(unsafe.Sizeof(*p))
	return c.device("set parameters of", id,
		Command{Op: uapi.UBLK_U_CMD_SET_PARAMS, Buf: bytesOf(p), Timeout: commandTimeout})
}

// Params returns the parameters that the driver has for device id.
func (c *Control) Params(id uint32) (Params, error) {
	var p uapi.Params
	p.Len = uint32(unsafe.Sizeof(p))
	err := c.device("get parameters of", id,
		Command{Op: uapi.UBLK_U_CMD_GET_PARAMS, Buf: bytesOf(&p), Timeout: commandTimeout})
	if err != nil {
		return Params{}, err
	}
	return paramsOf(&p), nil
}

// startTimeout bounds a START_DEV. A partition scan reads a few blocks, and each read may
// wait for the error handling of a disk.
const startTimeout = 2 * time.Minute

// startDev is UBLK_U_CMD_START_DEV. It waits until every tag is fetched. Up to Linux 6.18
// it also waits for the partition scan, which reads from the device.
func (c *Control) startDev(id uint32) error {
	return c.device("start", id,
		Command{Op: uapi.UBLK_U_CMD_START_DEV, Data: uint64(unix.Getpid()), Timeout: startTimeout})
}

// Stop removes the disk of device id (UBLK_U_CMD_STOP_DEV). The kernel writes the dirty
// pages first, so the server must go on serving, and Stop takes as long as that I/O. Then
// the driver ends the server's fetches. If the device has UBLK_F_USER_RECOVERY, the driver fails
// these writes: write the pages before Stop (BLKFLSBUF).
func (c *Control) Stop(id uint32) error {
	return c.device("stop", id, Command{Op: uapi.UBLK_U_CMD_STOP_DEV})
}

// TryStop is Stop for a device that no process has open. It returns an error that wraps
// EBUSY if a process has it open, and ErrNotSupported before Linux 7.0.
func (c *Control) TryStop(id uint32) error {
	err := c.device("stop", id, Command{Op: uapi.UBLK_U_CMD_TRY_STOP_DEV})
	if isNotSupported(err) {
		return fmt.Errorf("stop device %d unless in use: %w", id, ErrNotSupported)
	}
	return err
}

// Delete removes device id (UBLK_U_CMD_DEL_DEV). When it returns nil, the id and the
// module are free. It returns an error that wraps ErrLingers if the device is gone but a
// process still has it open or mapped. The last close then frees the rest.
func (c *Control) Delete(id uint32) error {
	err := c.device("delete", id, Command{Op: uapi.UBLK_U_CMD_DEL_DEV, Timeout: lingerTimeout})
	if errors.Is(err, unix.EINTR) {
		return fmt.Errorf("delete device %d: %w", id, ErrLingers)
	}
	return err
}

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
