package mounts

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// MakeTarget makes the directory, or the file for a device, that something is mounted on.
func MakeTarget(path string, isFile bool) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return err
	}
	if !isFile {
		if err := os.Mkdir(path, 0o750); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
		return nil
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o640)
	if err != nil {
		return err
	}
	return f.Close()
}

// RemoveTarget removes a target that nothing is mounted on. It leaves a directory with
// files and a file with data.
func RemoveTarget(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if !info.IsDir() && (!info.Mode().IsRegular() || info.Size() > 0) {
		return fmt.Errorf("remove %s: not an empty file: %w", path, unix.ENOTEMPTY)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// Number returns the number of the device whose node is at a path, as "major:minor".
func Number(path string) (string, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return "", fmt.Errorf("stat %s: %w", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return "", nil
	}
	return fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev)), nil
}

// SetReadOnly makes a disk read-only for all its users, or writable.
func SetReadOnly(path string, readOnly bool) error {
	disk, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = disk.Close() }()
	value := 0
	if readOnly {
		value = 1
	}
	if err := unix.IoctlSetPointerInt(int(disk.Fd()), unix.BLKROSET, value); err != nil {
		return fmt.Errorf("make %s read-only (%t): %w", path, readOnly, err)
	}
	return nil
}

// DeviceSize returns the size of a disk in bytes.
func DeviceSize(disk *os.File) (int64, error) {
	size, err := disk.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, fmt.Errorf("ask for the size of %s: %w", disk.Name(), err)
	}
	return size, nil
}
