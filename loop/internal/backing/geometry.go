package backing

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/hint"
)

// maxSectorSize is the largest logical block that every kernel takes: the
// driver allows a page (ublk_validate_params).
const maxSectorSize = 4096

// lay decides which part of the backing is the device, and its sector size.
func (b *Backing) lay(o *Options) error {
	total, err := unix.Seek(b.FD, 0, unix.SEEK_END) // of a disk too (blkdev_llseek)
	if err != nil {
		return fmt.Errorf("ask for the size: %w", err)
	}
	if b.blockSize, err = b.allocationUnit(); err != nil {
		return err
	}
	if b.SectorSize, err = b.chooseSectorSize(o, uint64(total)); err != nil {
		return err
	}
	b.TransferSize = o.Transfer.sectorSizeOn(b.SectorSize)
	b.Offset = o.Offset
	b.Size, err = extent(uint64(total), o.Offset, o.SizeLimit, b.SectorSize)
	return err
}

// chooseSectorSize returns the sector size that was asked for, else the disk's
// own, or the transfer's if that is larger; for a file 512, or 4096 if its
// partition table is made for that.
func (b *Backing) chooseSectorSize(o *Options, total uint64) (uint32, error) {
	size, own, transfer := o.SectorSize, b.queue.logicalBlockSize, o.Transfer.sectorSizeOn(0)
	switch {
	case size == 0 && b.IsDisk:
		size = max(own, transfer)
	case size == 0 && o.Transfer != nil:
		size = max(512, transfer)
	case size == 0:
		return b.fileSectorSize(o.Offset, total), nil
	}
	switch {
	case size < 512 || size > maxSectorSize || size&(size-1) != 0:
		return 0, fmt.Errorf("sectors of %d bytes: not 512, 1024, 2048 or 4096: %w", size, unix.EINVAL)
	case b.IsDisk && size < own:
		err := fmt.Errorf("sectors of %d bytes: the disk's own have %d: %w", size, own, unix.EINVAL)
		return 0, hint.Add(err, "use {sector_size=%d}, or leave it out", own)
	case o.SectorSize != 0 && transfer != 0 && o.SectorSize != transfer:
		err := fmt.Errorf("sectors of %d bytes: the transfer's have %d: %w", size, transfer, unix.EINVAL)
		return 0, hint.Add(err, "leave {sector_size} out")
	}
	return size, nil
}

// gptSignature starts the header of a partition table (UEFI 2.10, 5.3.2),
// which is in the second sector: where it is tells the size of the first.
const gptSignature = "EFI PART"

// fileSectorSize returns 4096 for the image of a disk with such sectors, whose
// partitions nobody finds otherwise, else 512.
func (b *Backing) fileSectorSize(offset, total uint64) uint32 {
	if offset > total || offset%4096 != 0 || total%4096 != 0 {
		return 512
	}
	if b.holds(gptSignature, offset+4096) && !b.holds(gptSignature, offset+512) {
		return 4096
	}
	return 512
}

// holds reports whether the backing has a text at an offset. What cannot be
// read is not there.
func (b *Backing) holds(text string, offset uint64) bool {
	buf := make([]byte, len(text))
	for {
		n, err := unix.Pread(b.FD, buf, int64(offset))
		if !errors.Is(err, unix.EINTR) {
			return err == nil && n == len(text) && string(buf) == text
		}
	}
}

// extent returns the size of the device that starts at offset in a backing of
// total bytes, and ends at its end or after limit bytes, if that is not 0.
func extent(total, offset, limit uint64, sectorSize uint32) (uint64, error) {
	sector := uint64(sectorSize)
	switch {
	case total == 0:
		return 0, fmt.Errorf("empty: %w", unix.EINVAL)
	case offset%sector != 0:
		return 0, fmt.Errorf("offset %d: not a multiple of the sector size %d: %w", offset, sector, unix.EINVAL)
	case offset >= total:
		return 0, fmt.Errorf("offset %d: not below the size %d: %w", offset, total, unix.EINVAL)
	case limit%sector != 0:
		return 0, fmt.Errorf("size limit %d: not a multiple of the sector size %d: %w", limit, sector, unix.EINVAL)
	}
	size := total - offset
	if limit != 0 {
		size = min(size, limit)
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

// allocationUnit returns the block size of the file system, which holes have
// to fit to free anything.
func (b *Backing) allocationUnit() (uint32, error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(b.FD, &st); err != nil {
		return 0, fmt.Errorf("ask for the file system: %w", err)
	}
	return unitOf(int64(st.Bsize)), nil
}

// unitOf returns a file system's block size, or 4096 for what is a network's or
// a user's idea of a block.
func unitOf(blockSize int64) uint32 {
	if blockSize >= 512 && blockSize <= 1<<28 && blockSize&(blockSize-1) == 0 {
		return uint32(blockSize)
	}
	return 4096
}
