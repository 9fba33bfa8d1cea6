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
	b.TransferSize = o.Transfer.sectorSizeOn(b.SectorSize)
	b.Offset = o.Offset
	b.Size, err = extent(uint64(total), o, b.SectorSize)
	if b.IsUnaligned() && !o.ReadOnly {
		return hint.Add(err, "attach it with {read_only}")
	}
	return err
}

// hintGrow is the hint for a file that is too small.
const hintGrow = "truncate --size makes a file larger"

// extent returns the size of the device that the options make of a backing of total bytes.
// The device starts at the offset, and ends with the backing, or after SizeLimit bytes if
// that is not 0.
func extent(total uint64, o *Options, sectorSize uint32) (uint64, error) {
	sector := uint64(sectorSize)
	switch {
	case total == 0:
		return 0, hint.Add(fmt.Errorf("empty: %w", unix.EINVAL), hintGrow)
	case o.Offset%sector != 0 && !o.ReadOnly:
		return 0, fmt.Errorf("offset %d: not a multiple of the sector size %d: %w", o.Offset, sector, unix.EINVAL)
	case o.Offset >= total:
		return 0, fmt.Errorf("offset %d: not below the size %d: %w", o.Offset, total, unix.EINVAL)
	case o.SizeLimit%sector != 0 && !o.WholeSectors:
		err := fmt.Errorf("size limit %d: not a multiple of the sector size %d: %w", o.SizeLimit, sector, unix.EINVAL)
		return 0, hint.Add(err, "the next larger multiple is {sizelimit=%d}", o.SizeLimit+sector-o.SizeLimit%sector)
	}
	size := total - o.Offset
	if o.SizeLimit != 0 {
		size = min(size, o.SizeLimit)
	}
	whole := size - size%sector
	switch {
	case whole == 0:
		return 0, hint.Add(fmt.Errorf("%d bytes: less than a sector of %d: %w", size, sector, unix.EINVAL), hintGrow)
	case whole != size && !o.WholeSectors:
		err := fmt.Errorf("%d bytes: not a multiple of the sector size %d: %w", size, sector, unix.EINVAL)
		return 0, hint.Add(err, "leave the last %d bytes out with {sizelimit=%d}", size-whole, whole)
	}
	return whole, nil
}

// IsUnaligned reports whether the device's sectors do not begin at multiples of their size
// in the file. Such a device is read-only.
func (b *Backing) IsUnaligned() bool { return b.SectorSize != 0 && b.Offset%uint64(b.SectorSize) != 0 }

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
