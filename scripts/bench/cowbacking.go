package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// cowBacking is where image and store are.
type cowBacking struct {
	name  string
	disks []string // names of the disks, for the bytes written
	image string
	// store makes a new store, as a file or disk.
	store  func() (path string, remove func() error, err error)
	remove func() error
}

// cowDisks has image and store on RAM disks.
func cowDisks(string) (*cowBacking, error) {
	image, err := nullDisk("RAM disks", "ublkloopimage", ramDiskSettings(strconv.Itoa(cowImageBytes>>20))...)
	if err != nil {
		return nil, err
	}
	b := &cowBacking{name: image.name, disks: []string{"ublkloopimage", "ublkloopstore"}, image: image.path, remove: image.remove}
	b.store = func() (string, func() error, error) {
		disk, err := nullDisk("", "ublkloopstore", ramDiskSettings(cowStoreMiB)...)
		if err != nil {
			return "", nil, err
		}
		// The RAM disk gets its pages now, not during the job.
		return disk.path, disk.remove, fill(disk.path, "/dev/zero", cowFilledMiB)
	}
	return b, fill(image.path, "/dev/urandom", cowImageBytes>>20)
}

// cowFiles has image and store in an ext4 on a RAM disk. The store is sparse.
func cowFiles(bin string) (*cowBacking, error) {
	disk, err := ramDisk()
	if err != nil {
		return nil, err
	}
	if err := command("mke2fs", "-q", "-F", "-t", "ext4", disk.path); err != nil {
		return nil, errors.Join(err, disk.remove())
	}
	dir, err := os.MkdirTemp("", "ublk-loop-bench")
	if err != nil {
		return nil, errors.Join(err, disk.remove())
	}
	if err := command("mount", "-t", "ext4", disk.path, dir); err != nil {
		return nil, errors.Join(err, os.Remove(dir), disk.remove())
	}
	b := &cowBacking{name: "ext4 on a RAM disk", disks: []string{filepath.Base(disk.path)}, image: filepath.Join(dir, "image")}
	b.remove = func() error { return errors.Join(command("umount", dir), os.Remove(dir), disk.remove()) }
	b.store = func() (string, func() error, error) {
		store := filepath.Join(dir, "store")
		return store, func() error {
			// The image remembers the store, and would then be only read.
			err := os.Remove(store)
			if errors.Is(err, os.ErrNotExist) {
				err = nil // a path without a store
			}
			return errors.Join(err, command(bin, "cow", "thaw", b.image), command("sync"))
		}, nil
	}
	return b, fill(b.image, "/dev/urandom", cowImageBytes>>20)
}

// fill writes the first part of a file or disk.
func fill(path, with string, mib int) error {
	return command("dd", "if="+with, "of="+path, "bs=1M", fmt.Sprintf("count=%d", mib), "conv=fsync")
}

// writtenTo returns the bytes that were written to disks, after a sync.
func writtenTo(disks []string) (total int64, err error) {
	if err := command("sync"); err != nil {
		return 0, err
	}
	for _, disk := range disks {
		data, err := os.ReadFile("/sys/block/" + disk + "/stat")
		if err != nil {
			return 0, err
		}
		const sectorsWritten = 6
		fields := strings.Fields(string(data))
		if len(fields) <= sectorsWritten {
			return 0, fmt.Errorf("statistics of %s: %q", disk, data)
		}
		sectors, err := strconv.ParseInt(fields[sectorsWritten], 10, 64)
		if err != nil {
			return 0, err
		}
		total += sectors << 9
	}
	return total, nil
}
