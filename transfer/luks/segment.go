package luks

import (
	"fmt"
	"slices"
	"strconv"
)

// readSegment sets the fields that the only segment describes, and returns the
// name of the segment (LUKS2 3.3).
func (v *Volume) readSegment(segments object) (name string, err error) {
	ids := segments.ids()
	if *segments.err == nil && len(ids) != 1 {
		return "", fmt.Errorf("%d data segments, only 1: %w", len(ids), ErrUnsupported)
	}
	if len(ids) == 1 {
		name = strconv.Itoa(ids[0])
	}
	s := segments.object(name)
	if kind := s.text("type"); *s.err == nil && kind != "crypt" {
		return "", fmt.Errorf("segment of type %s: only crypt: %w", printable(kind), ErrUnsupported)
	}
	cipher := s.text("encryption")
	v.Cipher = printable(cipher)
	v.Offset, v.IVOffset = s.decimal("offset"), s.decimal("iv_tweak")
	if s.text("size") != "dynamic" {
		if v.Size = s.decimal("size"); v.Size == 0 {
			s.fail("size", "zero")
		}
	}
	sectorSize := s.number("sector_size")
	if *s.err != nil {
		return "", *s.err
	}
	if s.has("integrity") {
		return "", fmt.Errorf("integrity protection: %w", ErrUnsupported)
	}
	if err := checkCipher(cipher); err != nil {
		return "", err
	}
	return name, v.setSectorSize(sectorSize)
}

// setSectorSize checks and sets the sector size. Like dm-crypt, it checks that
// offset, size and iv_tweak fit the sector size.
func (v *Volume) setSectorSize(size uint64) error {
	if !slices.Contains([]uint64{512, 1024, 2048, 4096}, size) {
		return fmt.Errorf("sector size %d: only 512, 1024, 2048 or 4096: %w", size, ErrUnsupported)
	}
	if v.Offset%sector != 0 || v.Size%size != 0 || v.IVOffset%(size/sector) != 0 {
		return fmt.Errorf("%w: %d bytes of data at %d with iv_tweak %d, in sectors of %d",
			ErrDamaged, v.Size, v.Offset, v.IVOffset, size)
	}
	v.SectorSize = uint32(size)
	return nil
}
