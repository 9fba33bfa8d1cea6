package udev

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// OpenScanned is Open for a device with partitions. When it returns, the kernel has read
// the partition table and the partitions' nodes exist.
func OpenScanned(ctx context.Context, path, number string) (*os.File, error) {
	w := &dirWatch{dir: filepath.Dir(path)}
	defer w.close()
	disk, err := w.open(ctx, path, number)
	if err != nil {
		return nil, err
	}
	if err := scanPartitions(ctx, w, disk); err != nil {
		return nil, errors.Join(err, disk.Close())
	}
	return disk, nil
}

// scanPartitions makes the kernel read the partition table. EBUSY means that a process
// has a partition open, so that the partitions are already known, or that a process
// claims the whole device until it closes it. udev does both. EINVAL means that the
// driver's own scan has not begun: a worker thread makes it since Linux 6.19, and until
// then GD_SUPPRESS_PART_SCAN is set (ublk_ctrl_start_dev in drivers/block/ublk_drv.c).
func scanPartitions(ctx context.Context, w *dirWatch, disk *os.File) error {
	path := disk.Name()
	name := filepath.Base(path)
	err := w.until(ctx, func() error {
		_, err := unix.IoctlRetInt(int(disk.Fd()), unix.BLKRRPART)
		if errors.Is(err, unix.EBUSY) && len(Partitions(name)) > 0 {
			return nil
		}
		return err
	}, unix.EBUSY, unix.EINVAL)
	if err != nil {
		return fmt.Errorf("scan partitions of %s: %w", path, err)
	}
	for _, p := range Partitions(name) {
		node := filepath.Join(filepath.Dir(path), p)
		if err := w.until(ctx, func() error { return unix.Access(node, unix.F_OK) }, unix.ENOENT); err != nil {
			return fmt.Errorf("find partition %s: %w", node, err)
		}
	}
	return nil
}

// Partitions returns the names of a disk's partitions.
func Partitions(disk string) []string {
	paths, err := filepath.Glob("/sys/block/" + disk + "/" + disk + "p*")
	if err != nil {
		return nil
	}
	for i := range paths {
		paths[i] = filepath.Base(paths[i])
	}
	return paths
}
