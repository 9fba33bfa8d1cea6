package luks

import (
	"fmt"
	"slices"
	"strings"
)

// readSegment sets the fields that the only segment describes, and returns the
// name of the segment (LUKS2 3.3).
func (v *Volume) readSegment(segments object) (name string, err error) {
	ids := segments.ids()
	if *segments.err == nil && len(ids) != 1 {
		return "", fmt.Errorf("%d data segments, only 1: %w", len(ids), ErrUnsupported)
	}
	name = "0"
	if !segments.has(name) { // cryptsetup counts segments from 0, without gaps
		segments.fail(name, "missing")
	}
	s := segments.object(name)
	if err := checkFlags(s); err != nil {
		return "", err
	}
	if kind := s.text("type"); *s.err == nil && kind != "crypt" {
		return "", fmt.Errorf("segment of type %s: only crypt: %w", printable(kind), ErrUnsupported)
	}
	cipher := s.text("encryption")
	v.Cipher = printable(cipher)
	v.Offset, v.IVOffset = s.decimal("offset"), s.decimal("iv_tweak")
	if s.text("size") != "dynamic" {
		v.Size = s.decimal("size")
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

// checkFlags returns an error if a flag of the only segment belongs to a
// reencryption. A backup segment needs another segment before it (LUKS2 3.3).
func checkFlags(segment object) error {
	for _, flag := range segment.optionalTexts("flags") {
		switch {
		case flag == "in-reencryption":
			return errReencryption
		case strings.HasPrefix(flag, "backup-"):
			segment.fail("flags", "backup of no other segment")
		}
	}
	return *segment.err
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
