package backing

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/hint"
)

// maxSectorSize is the largest logical block size of all kernels: the driver allows a
// page (ublk_validate_params).
const maxSectorSize = 4096

// sectorSizes are the possible logical block sizes of a device.
var sectorSizes = []uint32{512, 1024, 2048, maxSectorSize}

// chooseSectorSize returns the configured sector size. The default for a disk is its own,
// or the transfer's if that is larger. The default for a file is that of its partition
// table, or 512.
func (b *Backing) chooseSectorSize(o *Options, total uint64) (uint32, error) {
	size, own, transfer := o.SectorSize, b.queue.logicalBlockSize, o.Transfer.sectorSizeOn(0)
	switch {
	case size == 0 && b.IsDisk:
		size = max(own, transfer)
	case size == 0 && o.Transfer != nil:
		size = max(512, transfer)
	case size == 0:
		return b.tableSectorSize(o, total)
	}
	switch {
	case !slices.Contains(sectorSizes, size):
		return 0, fmt.Errorf("sectors of %d bytes: not 512, 1024, 2048 or 4096: %w", size, unix.EINVAL)
	case b.IsDisk && size < own:
		err := fmt.Errorf("sectors of %d bytes: the disk's own have %d: %w", size, own, unix.EINVAL)
		return 0, hint.Add(err, "use {sector_size=%d}, or omit it", own)
	case o.SectorSize != 0 && transfer != 0 && o.SectorSize != transfer:
		err := fmt.Errorf("sectors of %d bytes: the transfer's have %d: %w", size, transfer, unix.EINVAL)
		return 0, hint.Add(err, "leave {sector_size} out")
	}
	return size, nil
}
