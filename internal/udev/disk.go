package udev

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// OpenDisk opens the block device with a number, major:minor, whose name is path. The name
// may have been removed, or lead elsewhere. Then OpenDisk opens a node that it makes beside
// the name, which takes CAP_MKNOD, and removes again.
func OpenDisk(path, number string, flags int) (*os.File, error) {
	node, err := findNode(path, number)
	if err != nil {
		return openOwnNode(path, number, flags)
	}
	return openFound(node, path, flags)
}

// openOwnNode makes a node of a block device in a directory that only its maker can enter.
func openOwnNode(path, number string, flags int) (*os.File, error) {
	var major, minor uint32
	if _, err := fmt.Sscanf(number, "%d:%d", &major, &minor); err != nil {
		return nil, fmt.Errorf("number %q of a block device: %w", number, unix.EINVAL)
	}
	dir, err := os.MkdirTemp(filepath.Dir(path), ".ublk-loop-")
	if err != nil {
		return nil, fmt.Errorf("make another node of %s: %w", path, err)
	}
	defer func() { _ = os.RemoveAll(dir) }() // only root could enter what stays
	name := filepath.Join(dir, "node")
	if err := unix.Mknod(name, unix.S_IFBLK|0o600, int(unix.Mkdev(major, minor))); err != nil {
		return nil, fmt.Errorf("make another node of %s: %w", path, err)
	}
	fd, err := unix.Open(name, flags|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open another node of", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}
