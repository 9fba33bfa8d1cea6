package udev

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/internal/identity"
)

// openTimeout bounds the time until the nodes of a new device appear, if a program other
// than the kernel makes them. It also bounds the time that another process may keep the
// kernel from reading the partition table.
const openTimeout = 10 * time.Second

// Open opens a new device for the first time. After that, other programs can open it,
// too. Open waits until the device's node exists. number is the device's number,
// major:minor: the name may belong to something else, because the kernel leaves a file
// where it should make a node. It is empty if the caller checks what was opened. A server
// must not call Open for its own device.
func Open(ctx context.Context, path, number string) (*os.File, error) {
	w := &dirWatch{dir: filepath.Dir(path)}
	defer w.close()
	return w.open(ctx, path, number)
}

// open waits until a node exists, and opens it.
func (w *dirWatch) open(ctx context.Context, path, number string) (*os.File, error) {
	node := -1
	err := w.until(ctx, func() error {
		var err error
		node, err = findNode(path, number)
		return err
	}, unix.ENOENT, errOtherNumber)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return openFound(node, path, unix.O_RDONLY)
}

// errOtherNumber is for a node of another device. A program that makes nodes may still
// replace it.
var errOtherNumber = errors.New("the name belongs to another device")

// findNode opens a path with O_PATH, and returns an error that wraps ENOTBLK unless it is
// the node of the block device with a number, or number is empty.
func findNode(path, number string) (int, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil || number == "" {
		return fd, err
	}
	if err := checkNode(fd, path, number); err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func checkNode(fd int, path, number string) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	var err error
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFBLK:
		err = fmt.Errorf("another file has the name of the device: %w", unix.ENOTBLK)
	case identity.MajMin(st.Rdev) != number:
		err = fmt.Errorf("%w, %s, and not to the new one, %s: %w", errOtherNumber, identity.MajMin(st.Rdev), number, unix.ENOTBLK)
	}
	return hint.Add(err, "remove the file: rm %s", path)
}

// openFound opens what findNode has found, and closes the descriptor of findNode.
func openFound(node int, path string, flags int) (*os.File, error) {
	defer func() { _ = unix.Close(node) }()
	fd, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", node), flags|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s by /proc: %w", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}
