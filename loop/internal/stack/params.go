package stack

import (
	"fmt"
	"math"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/loop/internal/backing"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// These bound the largest request, as for a device of one file.
const (
	maxIOBytes     = 32 << 20
	copyMaxIOBytes = 256 << 10
)

// smallestChunk is the smallest chunk at which the kernel divides requests. It costs less to
// divide a request of smaller chunks here, where adjacent chunks of a stripe are one part.
const smallestChunk = 64 << 10

// maxHoleBytes is the largest discard and write-zeroes request: kernels before 6.11 lose the
// bits above 32 of its length in bytes.
const maxHoleBytes = math.MaxUint32

// MaxIOBytes returns the value for ublk.Options.MaxIOBytes.
func (s *Stack) MaxIOBytes(mode ublk.BufferMode) uint32 {
	if s.maxIOAsked != 0 {
		return s.maxIOAsked
	}
	limit := uint64(maxIOBytes)
	if !mode.ZeroCopy() {
		limit = copyMaxIOBytes
	}
	page := uint64(unix.Getpagesize())
	size := min(s.limitsOf(mode.ZeroCopy()).MaxIOBytes, limit)
	return uint32(max((size+page-1)/page*page, page))
}

// Params returns the device's parameters for the block layer. granted is the largest request
// that the driver allows (ublk.Info.MaxIOBytes).
func (s *Stack) Params(mode ublk.BufferMode, granted uint32) (ublk.Params, error) {
	l := s.limitsOf(mode.ZeroCopy())
	if granted < uint32(unix.Getpagesize()) {
		return ublk.Params{}, fmt.Errorf("largest request of %d bytes: below a page: %w", granted, unix.EINVAL)
	}
	block := l.LogicalBlockSize
	p := ublk.Params{
		Size:              s.Size,
		LogicalBlockSize:  block,
		PhysicalBlockSize: l.PhysicalBlockSize,
		IOMin:             backing.PreferredSize(l.IOMin, l.PhysicalBlockSize),
		IOOpt:             backing.PreferredSize(l.IOOpt, l.PhysicalBlockSize),
		MaxIOBytes:        s.maxRequest(&l, granted),
		ReadOnly:          s.ReadOnly,
		Rotational:        l.Rotational,
		VolatileCache:     l.WriteCache,
		FUA:               l.FUA,
	}
	if l.ChunkBytes >= smallestChunk && l.ChunkBytes>>sectorShift <= math.MaxUint32 {
		p.ChunkBytes = l.ChunkBytes
	}
	if mode.ZeroCopy() {
		l.addMemory(&p)
	}
	if !s.ReadOnly {
		l.addHoles(&p)
	}
	return p, nil
}

func (s *Stack) maxRequest(l *limits, granted uint32) uint32 {
	size := granted
	if s.maxIOAsked == 0 {
		size = uint32(min(l.MaxIOBytes, uint64(granted)))
	}
	return max(size-size%l.LogicalBlockSize, uint32(unix.Getpagesize()))
}

// addMemory adds the limits of the pages of a request.
func (l *limits) addMemory(p *ublk.Params) {
	p.VirtBoundaryMask = l.VirtBoundaryMask
	p.DMAAlignment = min(l.DMAAlignment, uint32(unix.Getpagesize())-1)
	p.Segments = ublk.SegmentParams{
		MaxSegments:    uint16(min(l.MaxSegments, math.MaxUint16)),
		MaxSegmentSize: max(l.MaxSegmentSize, uint32(unix.Getpagesize())),
		BoundaryMask:   math.MaxUint32,
	}
	if p.VirtBoundaryMask != 0 {
		p.Segments.MaxSegmentSize = math.MaxUint32
	}
}

// addHoles adds discards and write-zeroes.
func (l *limits) addHoles(p *ublk.Params) {
	block := uint64(l.LogicalBlockSize)
	whole := func(n uint64) uint64 { n = min(n, maxHoleBytes); return n - n%block }
	if p.Discard.MaxBytes = whole(l.DiscardMaxBytes); p.Discard.MaxBytes != 0 {
		p.Discard.Granularity, p.Discard.Alignment = l.DiscardGranularity, l.DiscardAlignment
	}
	p.MaxWriteZeroesBytes = whole(l.WriteZeroesMaxBytes)
}
