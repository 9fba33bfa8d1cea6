package udev

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// openTimeout bounds how long the nodes of a new device may take to come,
// where something other than the kernel makes them, and how long somebody may
// keep the kernel from looking for partitions.
const openTimeout = 10 * time.Second

// Open opens a new device for the first time, so that others can open it too. It waits
// until the device's node is there. A server must not call it for its own device.
func Open(ctx context.Context, path string) (*os.File, error) {
	w := &dirWatch{dir: filepath.Dir(path)}
	defer w.close()
	return w.open(ctx, path)
}

// open opens a node as soon as it is there.
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
