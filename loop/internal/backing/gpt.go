package backing

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/eintr"
	"github.com/ublk-loop/ublk-loop/internal/hint"
)

// These describe the header of a GUID partition table (UEFI 2.10, 5.3.2).
const (
	gptSignature = "EFI PART"
	// gptHeaderSize is the smallest size of a header in bytes.
	gptHeaderSize = 92
)

// tableSectorSize returns the sector size of the disk of which the file is an image: the
// size for which the file has a GUID partition table, or 512 without a table. It returns
// an error if the device cannot have that size, because its partitions would be missing
// with any other size.
func (b *Backing) tableSectorSize(o *Options, total uint64) (uint32, error) {
	if o.Offset >= total {
		return 512, nil
	}
	size := total - o.Offset
	if o.SizeLimit != 0 {
		size = min(size, o.SizeLimit)
	}
	for _, sector := range sectorSizes {
		has, err := b.hasTable(o.Offset, size, sector)
		if err != nil {
			return 0, hint.Add(fmt.Errorf("look for a partition table: %w", err), "{sector_size=512} attaches it without a look at the table")
		}
		if !has {
			continue
		}
		if _, err := extent(total, o, sector); err != nil {
			err = fmt.Errorf("partition table of sectors of %d bytes: %w", sector, err)
			if h := new(hint.Error); errors.As(err, &h) {
				return 0, err
			}
			return 0, hint.Add(err, "use {sector_size=512} for a device without partitions")
		}
		return sector, nil
	}
	return 512, nil
}

// hasTable reports whether the size bytes at offset have a GUID partition table
// for sectors of a size. It makes the checks of the kernel on the first copy of
// the header (is_gpt_valid in block/partitions/efi.c).
func (b *Backing) hasTable(offset, size uint64, sector uint32) (bool, error) {
	h := make([]byte, sector)
	if whole, err := b.read(h, offset+uint64(sector)); !whole || string(h[:8]) != gptSignature {
		return false, err
	}
	length := binary.LittleEndian.Uint32(h[12:])
	if length < gptHeaderSize || length > sector {
		return false, nil
	}
	sum := binary.LittleEndian.Uint32(h[16:])
	clear(h[16:20]) // the field itself counts as zero
	self, first, last := binary.LittleEndian.Uint64(h[24:]), binary.LittleEndian.Uint64(h[40:]), binary.LittleEndian.Uint64(h[48:])
	return crc32.ChecksumIEEE(h[:length]) == sum && self == 1 && first <= last && last < size/uint64(sector), nil
}

// read fills buf from an offset and reports whether the file has that much.
func (b *Backing) read(buf []byte, offset uint64) (whole bool, err error) {
	n := 0
	err = eintr.Repeat(func() error {
		n, err = unix.Pread(b.FD, buf, int64(offset))
		return err
	})
	return n == len(buf), err
}
