package backing

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/hint"
)

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
