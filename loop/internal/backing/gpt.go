package backing

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"golang.org/x/sys/unix"

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
		if !b.hasTable(o.Offset, size, sector) {
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
func (b *Backing) hasTable(offset, size uint64, sector uint32) bool {
	h := make([]byte, sector)
	if !b.read(h, offset+uint64(sector)) || string(h[:8]) != gptSignature {
		return false
	}
	length := binary.LittleEndian.Uint32(h[12:])
	if length < gptHeaderSize || length > sector {
		return false
	}
	sum := binary.LittleEndian.Uint32(h[16:])
	clear(h[16:20]) // the field itself counts as zero
	self, first, last := binary.LittleEndian.Uint64(h[24:]), binary.LittleEndian.Uint64(h[40:]), binary.LittleEndian.Uint64(h[48:])
	return crc32.ChecksumIEEE(h[:length]) == sum && self == 1 && first <= last && last < size/uint64(sector)
}

// read fills buf from an offset and reports whether that was possible.
func (b *Backing) read(buf []byte, offset uint64) bool {
	for {
		n, err := unix.Pread(b.FD, buf, int64(offset))
		if !errors.Is(err, unix.EINTR) {
			return err == nil && n == len(buf)
		}
	}
}
