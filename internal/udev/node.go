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
	fd := -1
	err := w.until(ctx, func() error {
		var err error
		if number != "" {
			err = checkNode(path, number)
		}
		if err == nil {
			fd, err = unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		}
		return err
	}, unix.ENOENT, errOtherNumber)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// errOtherNumber is for a node of another device. A program that makes nodes may still
// replace it.
var errOtherNumber = errors.New("the name belongs to another device")

// checkNode returns an error unless a path leads to the node of the block device with a
// number, major:minor. For another file or another device it wraps ENOTBLK.
func checkNode(path, number string) error {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
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
