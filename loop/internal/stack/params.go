package stack

import (
	"math"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/loop/internal/backing"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// smallestChunk is the smallest chunk at which the kernel divides requests. It costs less to
// divide a request of smaller chunks here, where adjacent chunks of a stripe are one part.
const smallestChunk = 64 << 10

// MaxIOBytes returns the value for ublk.Options.MaxIOBytes.
func (s *Stack) MaxIOBytes(mode ublk.BufferMode) uint32 {
	return backing.RequestSizes{Asked: s.maxIOAsked, Below: s.limitsOf(mode.ZeroCopy()).MaxIOBytes}.Wanted(mode)
}

// Params returns the device's parameters for the block layer. granted is the largest request
// that the driver allows (ublk.Info.MaxIOBytes).
func (s *Stack) Params(mode ublk.BufferMode, granted uint32) (ublk.Params, error) {
	l := s.limitsOf(mode.ZeroCopy())
	largest, err := backing.RequestSizes{Asked: s.maxIOAsked, Below: l.MaxIOBytes}.Largest(granted, l.LogicalBlockSize)
	if err != nil {
		return ublk.Params{}, err
	}
	p := ublk.Params{
		Size:              s.Size,
		LogicalBlockSize:  l.LogicalBlockSize,
		PhysicalBlockSize: l.PhysicalBlockSize,
		IOMin:             backing.PreferredSize(l.IOMin, l.PhysicalBlockSize),
		IOOpt:             backing.PreferredSize(l.IOOpt, l.PhysicalBlockSize),
		MaxIOBytes:        largest,
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
	whole := func(n uint64) uint64 { n = min(n, backing.MaxHoleBytes); return n - n%block }
	if p.Discard.MaxBytes = whole(l.DiscardMaxBytes); p.Discard.MaxBytes != 0 {
		p.Discard.Granularity, p.Discard.Alignment = l.DiscardGranularity, l.DiscardAlignment
	}
	p.MaxWriteZeroesBytes = whole(l.WriteZeroesMaxBytes)
}
