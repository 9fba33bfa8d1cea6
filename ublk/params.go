package ublk

import (
	"errors"
	"fmt"
	"math"
	"math/bits"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk/uapi"
)

// sectorShift is the binary logarithm of a sector's 512 bytes.
const sectorShift = 9

// Params describes a device to the block layer: its size, its queue limits and its
// abilities. All sizes are in bytes. The zero value of a limit leaves the block layer's
// default.
type Params struct {
	// Size is the device's size: a multiple of LogicalBlockSize, and not 0.
	Size uint64
	// LogicalBlockSize is the smallest unit of I/O: a power of two from 512
	// to the page size. 0 means 512.
	LogicalBlockSize uint32
	// PhysicalBlockSize is the smallest unit that the medium writes without a read
	// before: a power of two from LogicalBlockSize to 256 MiB. 0 means
	// LogicalBlockSize.
	PhysicalBlockSize uint32
	// IOMin is the preferred smallest size of I/O, and IOOpt the optimal size: powers of
	// two up to 256 MiB, 0 for none.
	IOMin, IOOpt uint32
	// MaxIOBytes is the largest request: a multiple of 512, from the page size to the device's
	// Info.MaxIOBytes. 0 means Info.MaxIOBytes.
	MaxIOBytes uint32
	// ChunkBytes is a boundary that no read or write crosses: a multiple of
	// LogicalBlockSize, below 2 TiB.
	ChunkBytes uint64
	// VirtBoundaryMask is the mask of the address boundary at which a request's segments
	// meet (4095 for NVMe).
	VirtBoundaryMask uint64
	// DMAAlignment is the mask of the alignment of a segment's address: a power of two
	// less one, below the page size (Linux 6.15). 0 leaves 3.
	DMAAlignment uint32
	// Segments are the limits of a request's segments (Linux 6.15).
	Segments SegmentParams

	ReadOnly      bool
	Rotational    bool
	VolatileCache bool // the block layer sends flushes
	FUA           bool // the block layer sends FUA writes; needs VolatileCache

	Discard DiscardParams
	// MaxWriteZeroesBytes is the largest write-zeroes request: a multiple of
	// 512, below 2 TiB, 0 for none.
	MaxWriteZeroesBytes uint64
}

// SegmentParams limit the segments of a request. If MaxSegments is 0, none of the limits is
// set.
type SegmentParams struct {
	MaxSegments    uint16
	MaxSegmentSize uint32 // bytes, at least 4096
	BoundaryMask   uint64 // 2^n-1, at least 4095
}

// DiscardParams describe discards. If MaxBytes is 0, the device has no discards.
type DiscardParams struct {
	MaxBytes    uint64 // the largest request: a multiple of 512, below 2 TiB
	Granularity uint32
	Alignment   uint32
}

// maxBlockSize is the largest physical block and the largest preferred size of I/O. Newer drivers
// refuse larger ones, and older drivers take any (ublk_validate_params in drivers/block/ublk_drv.c).
const maxBlockSize = 256 << 20

// validate refuses values that the driver would refuse with a bare EINVAL, and senseless
// values that the driver would accept. maxIOBytes is the device's Info.MaxIOBytes.
func (p *Params) validate(maxIOBytes uint32) error {
	switch page := uint32(unix.Getpagesize()); {
	case p.Size == 0:
		return errors.New("a device of no bytes")
	case !isPow2(p.LogicalBlockSize) || p.LogicalBlockSize < 512 || p.LogicalBlockSize > page:
		return fmt.Errorf("logical block size %d: not a power of two from 512 to %d", p.LogicalBlockSize, page)
	case p.Size%uint64(p.LogicalBlockSize) != 0:
		return fmt.Errorf("%d bytes: not a multiple of the logical block size %d", p.Size, p.LogicalBlockSize)
	case !isPow2(p.PhysicalBlockSize) || p.PhysicalBlockSize < p.LogicalBlockSize || p.PhysicalBlockSize > maxBlockSize:
		return fmt.Errorf("physical block size %d: not a power of two from %d to %d", p.PhysicalBlockSize, p.LogicalBlockSize, maxBlockSize)
	case !isPreferredSize(p.IOMin), !isPreferredSize(p.IOOpt):
		return fmt.Errorf("I/O sizes %d and %d: not powers of two up to %d", p.IOMin, p.IOOpt, maxBlockSize)
	case p.FUA && !p.VolatileCache:
		return errors.New("FUA without a volatile cache")
	}
	if err := p.validateRequests(maxIOBytes); err != nil {
		return err
	}
	return p.validateSegments()
}

// validateRequests checks the sizes that the driver has in sectors.
func (p *Params) validateRequests(maxIOBytes uint32) error {
	// The driver refuses less than a page (ublk_validate_params in drivers/block/ublk_drv.c).
	if page := uint32(unix.Getpagesize()); p.MaxIOBytes < page || p.MaxIOBytes > maxIOBytes || !isSectors(uint64(p.MaxIOBytes)) {
		return fmt.Errorf("largest request of %d bytes: not a multiple of 512 from %d to %d", p.MaxIOBytes, page, maxIOBytes)
	}
	switch {
	case !isSectors(p.ChunkBytes) || p.ChunkBytes%uint64(p.LogicalBlockSize) != 0:
		return fmt.Errorf("chunks of %d bytes: not a multiple of the logical block size %d below 2 TiB", p.ChunkBytes, p.LogicalBlockSize)
	case !isSectors(p.Discard.MaxBytes):
		return fmt.Errorf("largest discard of %d bytes: not a multiple of 512 below 2 TiB", p.Discard.MaxBytes)
	case !isSectors(p.MaxWriteZeroesBytes):
		return fmt.Errorf("largest write-zeroes request of %d bytes: not a multiple of 512 below 2 TiB", p.MaxWriteZeroesBytes)
	}
	return nil
}

// isPreferredSize reports whether a preferred size of I/O is 0, for none, or a power of two that the
// driver takes.
func isPreferredSize(size uint32) bool { return size == 0 || isPow2(size) && size <= maxBlockSize }

// isSectors reports whether a size is a whole number of sectors that fits in the driver's
// 32 bits.
func isSectors(size uint64) bool {
	return size%(1<<sectorShift) == 0 && size>>sectorShift <= math.MaxUint32
}

func (p *Params) validateSegments() error {
	s := p.Segments
	switch {
	case p.DMAAlignment&(p.DMAAlignment+1) != 0 || p.DMAAlignment >= uint32(unix.Getpagesize()):
		return fmt.Errorf("DMA alignment mask %#x: not a power of two less one, below the page size", p.DMAAlignment)
	case s.MaxSegments == 0:
		return nil
	case s.MaxSegmentSize < uapi.UBLK_MIN_SEGMENT_SIZE:
		return fmt.Errorf("max segment size %d: below %d", s.MaxSegmentSize, uapi.UBLK_MIN_SEGMENT_SIZE)
	case s.BoundaryMask&(s.BoundaryMask+1) != 0 || s.BoundaryMask < uapi.UBLK_MIN_SEGMENT_SIZE-1:
		return fmt.Errorf("segment boundary mask %#x: not a power of two less one from 4095", s.BoundaryMask)
	}
	return nil
}

// setDefaults replaces the zero values that stand for a default.
func (p *Params) setDefaults(maxIOBytes uint32) {
	if p.LogicalBlockSize == 0 {
		p.LogicalBlockSize = 512
	}
	p.PhysicalBlockSize = max(p.PhysicalBlockSize, p.LogicalBlockSize)
	if p.MaxIOBytes == 0 {
		p.MaxIOBytes = maxIOBytes
	}
}

// encode returns the parameters in the driver's form. setDefaults and validate come first.
func (p *Params) encode() *uapi.Params {
	u := &uapi.Params{Types: uapi.UBLK_PARAM_TYPE_BASIC, Basic: uapi.ParamBasic{
		Attrs:            p.attrs(),
		LogicalBsShift:   shift(p.LogicalBlockSize),
		PhysicalBsShift:  shift(p.PhysicalBlockSize),
		IOMinShift:       shift(p.IOMin),
		IOOptShift:       shift(p.IOOpt),
		MaxSectors:       p.MaxIOBytes >> sectorShift,
		ChunkSectors:     uint32(p.ChunkBytes >> sectorShift),
		DevSectors:       p.Size >> sectorShift,
		VirtBoundaryMask: p.VirtBoundaryMask,
	}}
	if p.Discard.MaxBytes != 0 || p.MaxWriteZeroesBytes != 0 {
		u.Types |= uapi.UBLK_PARAM_TYPE_DISCARD
		u.Discard = uapi.ParamDiscard{
			DiscardAlignment:      p.Discard.Alignment,
			DiscardGranularity:    max(p.Discard.Granularity, p.LogicalBlockSize),
			MaxDiscardSectors:     uint32(p.Discard.MaxBytes >> sectorShift),
			MaxDiscardSegments:    1,
			MaxWriteZeroesSectors: uint32(p.MaxWriteZeroesBytes >> sectorShift),
		}
	}
	if p.DMAAlignment != 0 {
		u.Types |= uapi.UBLK_PARAM_TYPE_DMA_ALIGN
		u.DMA.Alignment = p.DMAAlignment
	}
	if s := p.Segments; s.MaxSegments != 0 {
		u.Types |= uapi.UBLK_PARAM_TYPE_SEGMENT
		u.Seg = uapi.ParamSegment{MaxSegments: s.MaxSegments, MaxSegmentSize: s.MaxSegmentSize, SegBoundaryMask: s.BoundaryMask}
	}
	return u
}

func (p *Params) attrs() uint32 {
	var attrs uint32
	for _, a := range []struct {
		set bool
		bit uint32
	}{
		{p.ReadOnly, uapi.UBLK_ATTR_READ_ONLY},
		{p.Rotational, uapi.UBLK_ATTR_ROTATIONAL},
		{p.VolatileCache, uapi.UBLK_ATTR_VOLATILE_CACHE},
		{p.FUA, uapi.UBLK_ATTR_FUA},
	} {
		if a.set {
			attrs |= a.bit
		}
	}
	return attrs
}

// paramsOf is the inverse of encode.
func paramsOf(u *uapi.Params) Params {
	b, d := &u.Basic, &u.Discard
	return Params{
		Size:                b.DevSectors << sectorShift,
		LogicalBlockSize:    1 << b.LogicalBsShift,
		PhysicalBlockSize:   1 << b.PhysicalBsShift,
		IOMin:               unshift(b.IOMinShift),
		IOOpt:               unshift(b.IOOptShift),
		MaxIOBytes:          b.MaxSectors << sectorShift,
		ChunkBytes:          bytesOfSectors(b.ChunkSectors),
		VirtBoundaryMask:    b.VirtBoundaryMask,
		DMAAlignment:        u.DMA.Alignment,
		Segments:            SegmentParams{u.Seg.MaxSegments, u.Seg.MaxSegmentSize, u.Seg.SegBoundaryMask},
		ReadOnly:            b.Attrs&uapi.UBLK_ATTR_READ_ONLY != 0,
		Rotational:          b.Attrs&uapi.UBLK_ATTR_ROTATIONAL != 0,
		VolatileCache:       b.Attrs&uapi.UBLK_ATTR_VOLATILE_CACHE != 0,
		FUA:                 b.Attrs&uapi.UBLK_ATTR_FUA != 0,
		Discard:             DiscardParams{bytesOfSectors(d.MaxDiscardSectors), d.DiscardGranularity, d.DiscardAlignment},
		MaxWriteZeroesBytes: bytesOfSectors(d.MaxWriteZeroesSectors),
	}
}

// bytesOfSectors returns the number of bytes of n sectors.
func bytesOfSectors(n uint32) uint64 { return uint64(n) << sectorShift }

func isPow2(n uint32) bool { return n != 0 && n&(n-1) == 0 }

// shift returns the binary logarithm of a power of two, and 0 for 0.
func shift(n uint32) uint8 {
	if n == 0 {
		return 0
	}
	return uint8(bits.TrailingZeros32(n))
}

// unshift is the inverse of shift for sizes, which are never 1.
func unshift(s uint8) uint32 {
	if s == 0 {
		return 0
	}
	return 1 << s
}
