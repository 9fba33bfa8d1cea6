package gpt

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"unicode/utf16"

	"golang.org/x/sys/unix"
)

// Errors of Read.
var (
	// ErrNoTable is returned if there is no table, or none behind a protective MBR.
	ErrNoTable = errors.New("no GUID partition table")
	// ErrInvalid is returned for a table with a contradiction. It wraps EINVAL.
	ErrInvalid = fmt.Errorf("invalid GUID partition table: %w", unix.EINVAL)
)

const (
	// headerSize is the length of the fields of a header, and the least that a header can have.
	headerSize = 92
	// entrySize is the size of an entry, the only one that the kernel takes.
	entrySize = 128
	// maxEntries is the largest number of entries. Most tables have 128.
	maxEntries = 1024
)

// A Partition is an entry that is in use. Start and Size are in bytes.
type Partition struct {
	Type, ID    GUID
	Start, Size uint64
	Attributes  uint64
	Name        string
}

// Read returns the partitions of an image of size bytes, in the order of their starts. It takes
// sectors of 512, 1024, 2048 and 4096 bytes. The error wraps ErrNoTable or ErrInvalid, or is one
// of reading.
func Read(r io.ReaderAt, size uint64) ([]Partition, error) {
	for sector := uint64(512); sector <= 4096; sector *= 2 {
		if 2*sector > size {
			break
		}
		start := make([]byte, 2*sector)
		if err := readAll(r, start, 0); err != nil {
			return nil, err
		}
		if h := start[sector:]; string(h[:8]) == "EFI PART" && hasProtectiveMBR(start) {
			return read(r, h, size/sector)
		}
	}
	return nil, ErrNoTable
}

// hasProtectiveMBR reports whether the first sector has a partition that stands for the table. If
// it has not, the image has another partition table now, and this one is a remainder.
func hasProtectiveMBR(sector []byte) bool {
	if sector[510] != 0x55 || sector[511] != 0xaa {
		return false
	}
	for entry := sector[446:510]; len(entry) > 0; entry = entry[16:] {
		if entry[4] == 0xee && binary.LittleEndian.Uint32(entry[8:]) == 1 {
			return true
		}
	}
	return false
}

// header has the fields of a header that matter. Places are numbers of sectors.
type header struct {
	first, last uint64 // usable sectors
	entries     uint64 // place of the entries
	count       uint32
	checksum    uint32 // of the entries
}

// parseHeader checks the header, which is one sector, of an image of a number of sectors.
func parseHeader(b []byte, sectors uint64) (*header, error) {
	length := binary.LittleEndian.Uint32(b[12:])
	if length < headerSize || uint64(length) > uint64(len(b)) {
		return nil, fmt.Errorf("header of %d bytes: %w", length, ErrInvalid)
	}
	sum := binary.LittleEndian.Uint32(b[16:])
	clear(b[16:20]) // the field itself counts as zero
	if crc32.ChecksumIEEE(b[:length]) != sum {
		return nil, fmt.Errorf("wrong checksum of the header: %w", ErrInvalid)
	}
	h := &header{
		first: binary.LittleEndian.Uint64(b[40:]), last: binary.LittleEndian.Uint64(b[48:]), entries: binary.LittleEndian.Uint64(b[72:]),
		count: binary.LittleEndian.Uint32(b[80:]), checksum: binary.LittleEndian.Uint32(b[88:]),
	}
	self, entry := binary.LittleEndian.Uint64(b[24:]), binary.LittleEndian.Uint32(b[84:])
	switch {
	case self != 1:
		return nil, fmt.Errorf("header for sector %d in sector 1: %w", self, ErrInvalid)
	case entry != entrySize:
		return nil, fmt.Errorf("entries of %d bytes, not %d: %w", entry, entrySize, ErrInvalid)
	case h.count > maxEntries:
		return nil, fmt.Errorf("%d entries, more than %d: %w", h.count, maxEntries, ErrInvalid)
	case h.first > h.last || h.last >= sectors:
		return nil, fmt.Errorf("usable sectors from %d to %d of %d: %w", h.first, h.last, sectors, ErrInvalid)
	}
	return h, nil
}

// read returns the partitions of a table whose header is one sector.
func read(r io.ReaderAt, b []byte, sectors uint64) ([]Partition, error) {
	sector := uint64(len(b))
	h, err := parseHeader(b, sectors)
	if err != nil {
		return nil, err
	}
	entries := make([]byte, h.count*entrySize)
	used := (uint64(len(entries)) + sector - 1) / sector
	if h.entries < 2 || h.entries > h.first || used > h.first-h.entries {
		return nil, fmt.Errorf("entries in sectors from %d, before the first usable sector %d: %w", h.entries, h.first, ErrInvalid)
	}
	if err := readAll(r, entries, h.entries*sector); err != nil {
		return nil, err
	}
	if crc32.ChecksumIEEE(entries) != h.checksum {
		return nil, fmt.Errorf("wrong checksum of the entries: %w", ErrInvalid)
	}
	all, err := h.parseEntries(entries, sector)
	if err == nil {
		err = checkOverlaps(all)
	}
	if err != nil {
		return nil, err
	}
	return all, nil
}

// parseEntries returns the partitions of entries, for sectors of a size.
func (h *header) parseEntries(entries []byte, sector uint64) (all []Partition, err error) {
	for number := 1; len(entries) > 0; number, entries = number+1, entries[entrySize:] {
		if guidAt(entries) == (GUID{}) {
			continue
		}
		first, last := binary.LittleEndian.Uint64(entries[32:]), binary.LittleEndian.Uint64(entries[40:])
		if first < h.first || last > h.last || first > last {
			return nil, fmt.Errorf("partition %d from sector %d to %d: %w", number, first, last, ErrInvalid)
		}
		all = append(all, Partition{
			Type: guidAt(entries), ID: guidAt(entries[16:]), Start: first * sector, Size: (last - first + 1) * sector,
			Attributes: binary.LittleEndian.Uint64(entries[48:]), Name: nameAt(entries[56:entrySize]),
		})
	}
	return all, nil
}

// nameAt returns the name in UTF-16 that ends with b or a zero.
func nameAt(b []byte) string {
	var units []uint16
	for ; len(b) > 1; b = b[2:] {
		unit := binary.LittleEndian.Uint16(b)
		if unit == 0 {
			break
		}
		units = append(units, unit)
	}
	return string(utf16.Decode(units))
}

// checkOverlaps sorts partitions by their starts, and refuses those that overlap.
func checkOverlaps(all []Partition) error {
	slices.SortFunc(all, func(a, b Partition) int { return cmp.Compare(a.Start, b.Start) })
	for i := 1; i < len(all); i++ {
		if before := all[i-1]; before.Start+before.Size > all[i].Start {
			return fmt.Errorf("partitions %s and %s overlap: %w", before.ID, all[i].ID, ErrInvalid)
		}
	}
	return nil
}

// readAll fills b from an offset. A short image is an invalid table.
func readAll(r io.ReaderAt, b []byte, at uint64) error {
	_, err := io.ReadFull(io.NewSectionReader(r, int64(at), int64(len(b))), b)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("the image ends in the table: %w", ErrInvalid)
	}
	return err
}
