package ublk

import (
	"errors"
	"fmt"
	"math/bits"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk/uapi"
)

// Features is the set of UBLK_F_ bits that a driver offers or a device has.
type Features uint64

// Has reports whether f has all of the bits.
func (f Features) Has(bits Features) bool { return f&bits == bits }

// A Feature is what one bit of Features means.
type Feature struct {
	Bit   Features
	Name  string // the kernel's name without UBLK_F_
	Since string // the first kernel release in which it works
}

// KnownFeatures lists the features by bit. The releases are from the history of
// linux/ublk_cmd.h.
var KnownFeatures = []Feature{
	{uapi.UBLK_F_SUPPORT_ZERO_COPY, "SUPPORT_ZERO_COPY", "6.15"},
	{uapi.UBLK_F_URING_CMD_COMP_IN_TASK, "URING_CMD_COMP_IN_TASK", "6.0"},
	{uapi.UBLK_F_NEED_GET_DATA, "NEED_GET_DATA", "6.0"},
	{uapi.UBLK_F_USER_RECOVERY, "USER_RECOVERY", "6.1"},
	{uapi.UBLK_F_USER_RECOVERY_REISSUE, "USER_RECOVERY_REISSUE", "6.1"},
	{uapi.UBLK_F_UNPRIVILEGED_DEV, "UNPRIVILEGED_DEV", "6.3"},
	{uapi.UBLK_F_CMD_IOCTL_ENCODE, "CMD_IOCTL_ENCODE", "6.4"},
	{uapi.UBLK_F_USER_COPY, "USER_COPY", "6.5"},
	{uapi.UBLK_F_ZONED, "ZONED", "6.6"},
	{uapi.UBLK_F_USER_RECOVERY_FAIL_IO, "USER_RECOVERY_FAIL_IO", "6.13"},
	{uapi.UBLK_F_UPDATE_SIZE, "UPDATE_SIZE", "6.16"},
	{uapi.UBLK_F_AUTO_BUF_REG, "AUTO_BUF_REG", "6.16"},
	{uapi.UBLK_F_QUIESCE, "QUIESCE", "6.16"},
	{uapi.UBLK_F_PER_IO_DAEMON, "PER_IO_DAEMON", "6.16"},
	{uapi.UBLK_F_BUF_REG_OFF_DAEMON, "BUF_REG_OFF_DAEMON", "6.17"},
	{uapi.UBLK_F_BATCH_IO, "BATCH_IO", "7.0"},
	{uapi.UBLK_F_INTEGRITY, "INTEGRITY", "7.0"},
	{uapi.UBLK_F_SAFE_STOP_DEV, "SAFE_STOP_DEV", "7.0"},
	{uapi.UBLK_F_NO_AUTO_PART_SCAN, "NO_AUTO_PART_SCAN", "7.0"},
	{uapi.UBLK_F_SHMEM_ZC, "SHMEM_ZC", "7.1"},
	{uapi.UBLK_F_IO_DESC_SIZE, "IO_DESC_SIZE", "7.3"},
}

// String lists the names of the bits, unknown ones by number.
func (f Features) String() string {
	var names []string
	for rest := uint64(f); rest != 0; rest &= rest - 1 {
		names = append(names, featureName(bits.TrailingZeros64(rest)))
	}
	return strings.Join(names, " ")
}

func featureName(bit int) string {
	for _, f := range KnownFeatures {
		if f.Bit == 1<<bit {
			return f.Name
		}
	}
	return fmt.Sprintf("bit%d", bit)
}

// Features asks the driver what it offers (UBLK_U_CMD_GET_FEATURES, Linux 6.5). It returns
// an error that wraps ErrNotSupported if the driver is older and cannot answer.
func (c *Control) Features() (Features, error) {
	var f uint64
	err := c.do(Command{
		Op: uapi.UBLK_U_CMD_GET_FEATURES, DevID: anyDevice, QueueID: noQueue,
		Buf: bytesOf(&f), Timeout: commandTimeout,
	})
	// A driver without the command looks for device ^0 first.
	if isNotSupported(err) || errors.Is(err, unix.ENODEV) {
		return 0, fmt.Errorf("get features: %w", ErrNotSupported)
	}
	return Features(f), wrap("get features", err)
}

// enotsupp is ENOTSUPP of linux/errno.h, which the kernel should not return to programs.
const enotsupp = unix.Errno(524)

// isNotSupported reports whether an error is the driver's answer to a command that it does
// not know. The answer depends on the release.
func isNotSupported(err error) bool {
	return errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOTTY) || errors.Is(err, enotsupp)
}
