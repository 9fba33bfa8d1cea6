package backing

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/hint"
)

// setExtent determines which part of the backing is the device, and its sector size.
func (b *Backing) setExtent(o *Options) error {
	total, err := unix.Seek(b.FD, 0, unix.SEEK_END) // also works for a disk (blkdev_llseek)
	if err != nil {
		return fmt.Errorf("get the size: %w", err)
	}
	if b.blockSize, err = b.allocationUnit(); err != nil {
		return err
	}
	if b.SectorSize, err = b.chooseSectorSize(o, uint64(total)); err != nil {
		return err
	}
	if o.WholeSectors {
		total -= total % int64(b.SectorSize)
	}
	b.TransferSize = o.Transfer.sectorSizeOn(b.SectorSize)
	b.Offset = o.Offset
	b.Size, err = extent(uint64(total), o.Offset, o.SizeLimit, b.SectorSize)
	return err
}

// extent returns the size of the device that starts at offset in a backing of total
// bytes. The device ends with the backing, or after sizeLimit bytes if that is not 0.
func extent(total, offset, sizeLimit uint64, sectorSize uint32) (uint64, error) {
	sector := uint64(sectorSize)
	switch {
	case total == 0:
		return 0, fmt.Errorf("empty: %w", unix.EINVAL)
	case offset%sector != 0:
		return 0, fmt.Errorf("offset %d: not a multiple of the sector size %d: %w", offset, sector, unix.EINVAL)
	case offset >= total:
		return 0, fmt.Errorf("offset %d: not below the size %d: %w", offset, total, unix.EINVAL)
	case sizeLimit%sector != 0:
		return 0, fmt.Errorf("size limit %d: not a multiple of the sector size %d: %w", sizeLimit, sector, unix.EINVAL)
	}
	size := total - offset
	if sizeLimit != 0 {
		size = min(size, sizeLimit)
	}
	whole := size - size%sector
	switch {
	case whole == 0:
		return 0, fmt.Errorf("%d bytes: less than a sector of %d: %w", size, sector, unix.EINVAL)
	case whole != size:
		err := fmt.Errorf("%d bytes: not a multiple of the sector size %d: %w", size, sector, unix.EINVAL)
		return 0, hint.Add(err, "leave the last %d bytes out with {sizelimit=%d}", size-whole, whole)
	}
	return size, nil
}

// allocationUnit returns the block size of the file system. Only holes of whole blocks
// free space.
func (b *Backing) allocationUnit() (uint32, error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(b.FD, &st); err != nil {
		return 0, fmt.Errorf("get the file system: %w", err)
	}
	return unitOf(st.Bsize), nil
}

// unitOf returns a file system's block size. It returns 4096 for file systems in user
// space or on a network, whose value may be meaningless.
func unitOf(blockSize int64) uint32 {
	if blockSize >= 512 && blockSize <= 1<<28 && blockSize&(blockSize-1) == 0 {
		return uint32(blockSize)
	}
	return 4096
}
