package udev

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// openTimeout bounds the time until the nodes of a new device appear, if a program other
// than the kernel makes them. It also bounds the time that another process may keep the
// kernel from reading the partition table.
const openTimeout = 10 * time.Second

// Open opens a new device for the first time. After that, other programs can open it,
// too. Open waits until the device's node exists. A server must not call it for its own
// device.
func Open(ctx context.Context, path string) (*os.File, error) {
	w := &dirWatch{dir: filepath.Dir(path)}
	defer w.close()
	return w.open(ctx, path)
}

// open waits until a node exists, and opens it.
func (w *dirWatch) open(ctx context.Context, path string) (*os.File, error) {
	fd := -1
	err := w.until(ctx, func() error {
		var err error
		fd, err = unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		return err
	}, unix.ENOENT)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}
