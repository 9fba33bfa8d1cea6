package mounts

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/await"
)

// endBytes is the part of each end of a device that must be zero before a file system is
// made on it. File systems, partition tables and RAID have their headers there.
const endBytes = 1 << 20

// MinBytes returns the smallest size of a file system, 0 for an unknown one.
func MinBytes(fsType string) int64 {
	switch fsType {
	case "ext4":
		return 1 << 20
	case "xfs":
		return 300 << 20 // mkfs.xfs(8)
	}
	return 0
}

// IsBlank reports whether both ends of a part of a disk are zero. An unreadable disk is an
// error and not blank. If the disk does not answer in time, IsBlank returns the context's cause.
func IsBlank(ctx context.Context, disk io.ReaderAt, from, size int64) (bool, error) {
	return await.Result(ctx, func() (bool, error) { return isBlank(disk, from, size) })
}

func isBlank(disk io.ReaderAt, from, size int64) (bool, error) {
	for _, at := range []int64{from, from + max(size-endBytes, 0)} {
		part := make([]byte, min(size, endBytes))
		if _, err := io.ReadFull(io.NewSectionReader(disk, at, int64(len(part))), part); err != nil {
			return false, fmt.Errorf("look for data: %w", err)
		}
		if len(bytes.Trim(part, "\x00")) > 0 {
			return false, nil
		}
	}
	return true, nil
}

// Make makes a file system. The device is new and zero, so nothing has to be discarded.
func Make(ctx context.Context, fsType, device string) error {
	switch fsType {
	case "ext4":
		return Call(ctx, "mkfs.ext4", "-q", "-F", "-m", "0", "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=1", device)
	case "xfs":
		return Call(ctx, "mkfs.xfs", "-q", "-f", "-K", device)
	}
	return fmt.Errorf("file system %q: %w", fsType, unix.EOPNOTSUPP)
}

// Grow gives a mounted file system the size of its device.
func Grow(ctx context.Context, fsType, device, target string) error {
	if fsType == "xfs" {
		return Call(ctx, "xfs_growfs", "-d", target)
	}
	return Call(ctx, "resize2fs", device)
}

// These are the requests of ioctl_fsfreeze(2).
const (
	fiFreeze = 0xc0045877
	fiThaw   = 0xc0045878
)

// OpenRoot opens the root directory of the file system of the device with a number, which is mounted at target. Others can
// unmount it at any time; then OpenRoot returns ErrOther. While the directory is open, it can only be unmounted lazily.
func OpenRoot(target, number string) (*os.File, error) {
	dir, err := os.OpenFile(target, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	if err := isOf(int(dir.Fd()), target, number); err != nil {
		_ = dir.Close()
		return nil, err
	}
	return dir, nil
}

// Freeze writes the file system of the device with a number, which is mounted at target, to the device, and holds back further
// writes until Thaw. It freezes no other file system. If the context is done before the device
// has answered, Freeze returns the cause. Before, it passes a function to givenUp that waits for the answer, and thaws the file
// system if it is frozen then.
func Freeze(ctx context.Context, target, number string, givenUp func(undo func() error)) error {
	freeze := func() error {
		dir, err := OpenRoot(target, number)
		if err != nil {
			return fmt.Errorf("freeze %s: %w", target, err)
		}
		return askDirectory(dir, "freeze", fiFreeze)
	}
	return freezeBy(ctx, freeze, func() error { return Thaw(target) }, givenUp)
}

func freezeBy(ctx context.Context, freeze, thaw func() error, givenUp func(undo func() error)) error {
	frozen := make(chan error, 1)
	go func() { frozen <- freeze() }() // until the device answers
	select {
	case err := <-frozen:
		return err
	case <-ctx.Done():
		givenUp(func() error {
			if err := <-frozen; err != nil {
				return nil // there is nothing to thaw
			}
			return thaw()
		})
		return context.Cause(ctx)
	}
}

// Thaw ends Freeze. It returns nil for a file system that is not frozen. It waits until the device answers.
func Thaw(target string) error {
	dir, err := os.OpenFile(target, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return fmt.Errorf("thaw %s: %w", target, err)
	}
	err = askDirectory(dir, "thaw", fiThaw)
	if errors.Is(err, unix.EINVAL) {
		return nil
	}
	return err
}

// askDirectory sends a request to the file system of a directory, and closes the directory.
func askDirectory(dir *os.File, what string, request uint) error {
	defer func() { _ = dir.Close() }()
	if err := unix.IoctlSetInt(int(dir.Fd()), request, 0); err != nil {
		return fmt.Errorf("%s %s: %w", what, dir.Name(), err)
	}
	return nil
}
