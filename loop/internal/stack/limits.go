package stack

import (
	"fmt"
	"math"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/loop/internal/backing"
	"github.com/ublk-loop/ublk-loop/transfer/table"
)

// This file combines limits as the kernel does for a device-mapper device
// (dm_calculate_queue_limits in drivers/md/dm-table.c), table by table.

// limits are those of a device of the stack.
type limits struct{ backing.Limits }

// unlimited is the start of each combination (blk_set_stacking_limits in
// block/blk-settings.c).
func unlimited() limits {
	return limits{backing.Limits{
		LogicalBlockSize: 512, PhysicalBlockSize: 512, IOMin: 512, MaxIOBytes: noMaximum, DMAAlignment: 511,
		MaxSegments: math.MaxUint16, MaxSegmentSize: math.MaxUint32, DiscardGranularity: 512, WriteZeroesMaxBytes: noMaximum,
	}}
}

// noMaximum is the kernel's largest number of sectors, in bytes.
const noMaximum = math.MaxUint32 << sectorShift

// limitsOf returns the limits of the last table.
func (s *Stack) limitsOf(zeroCopy bool) limits {
	c := combiner{stack: s, outside: make(map[string]limits)}
	for i, device := range s.tables.Devices() {
		c.outside[device] = limits{s.Backings[s.backingOf[i]].Limits(zeroCopy)}
	}
	for i := range s.tables.Tables {
		c.tables = append(c.tables, c.table(&s.tables.Tables[i]))
	}
	return c.tables[len(c.tables)-1]
}

// checkBlock refuses a file or disk that is added while the stack serves a device, if its logical blocks are
// larger than those of the device, which stay as they are.
func (s *Stack) checkBlock(b *backing.Backing) error {
	if block := s.limitsOf(false).LogicalBlockSize; b.SectorSize > block {
		return fmt.Errorf("%s has logical blocks of %d bytes, the device has %d: %w", b.Path, b.SectorSize, block, unix.EINVAL)
	}
	return nil
}

type combiner struct {
	stack   *Stack
	outside map[string]limits
	tables  []limits // of the tables so far
}

func (c *combiner) of(device string) limits {
	if i, ok := c.stack.tables.Table(device); ok {
		return c.tables[i]
	}
	return c.outside[device]
}

// table returns the limits of a table.
func (c *combiner) table(t *table.Table) limits {
	all, discards, zeroes := unlimited(), true, true
	for i := range t.Lines {
		l := &t.Lines[i]
		line, hasDiscards, hasZeroes := c.line(l)
		all.stack(&line, 0)
		discards, zeroes = discards && hasDiscards, zeroes && hasZeroes
	}
	if !discards {
		all.DiscardMaxBytes, all.DiscardGranularity, all.DiscardAlignment = 0, 0, 0
	}
	if !zeroes {
		all.WriteZeroesMaxBytes = 0
	}
	all.validate()
	return all
}

// line returns the limits of a line, and whether it has discards and write-zeroes.
func (c *combiner) line(l *table.Line) (line limits, discards, zeroes bool) {
	line, discards, zeroes = unlimited(), true, true
	areas := l.Target.Areas(l.Length)
	if _, ok := l.Target.(*table.Verity); ok {
		areas = areas[:1] // as in verity_iterate_devices
	}
	for _, a := range areas {
		below := c.of(a.Device)
		line.stack(&below, a.Start<<sectorShift)
		discards = discards && below.DiscardMaxBytes != 0
		zeroes = zeroes && below.WriteZeroesMaxBytes != 0
	}
	switch t := l.Target.(type) {
	case *table.Striped:
		line.stripe(uint64(t.Chunk)<<sectorShift, uint64(len(t.Stripes)))
	case *table.Zero, *table.ErrorTarget:
		line.DiscardMaxBytes, line.DiscardGranularity = noMaximum, 512
		discards, zeroes = true, false
	case *table.Snapshot:
		line.DiscardGranularity, line.DiscardMaxBytes = t.Chunk<<sectorShift, noMaximum
		// The kernel also requires discards of the origin, which never gets any.
		discards, zeroes = t.DiscardZeroes && c.of(t.Store).DiscardMaxBytes != 0, false
		// A flush saves records.
		line.WriteCache = line.WriteCache || t.Format != table.Transient && !c.stack.eager
	case *table.Crypt:
		line.LogicalBlockSize, line.PhysicalBlockSize = max(line.LogicalBlockSize, t.SectorSize), max(line.PhysicalBlockSize, t.SectorSize)
		line.IOMin, line.DMAAlignment = max(line.IOMin, t.SectorSize), line.LogicalBlockSize-1
		discards, zeroes = discards && t.AllowDiscards, false
	case *table.Verity:
		// verity_io_hints
		size := t.Tree.Params().DataBlockSize
		line.LogicalBlockSize, line.PhysicalBlockSize = max(line.LogicalBlockSize, size), max(line.PhysicalBlockSize, size)
		line.IOMin, line.DMAAlignment = max(line.IOMin, line.LogicalBlockSize), line.LogicalBlockSize-1
		discards, zeroes = false, false
	}
	return line, discards, zeroes
}

// stripe is stripe_io_hints in drivers/md/dm-stripe.c.
func (l *limits) stripe(chunk, stripes uint64) {
	l.ChunkBytes = chunk
	if chunk <= math.MaxUint32 && chunk*stripes <= math.MaxUint32 {
		l.IOMin, l.IOOpt = uint32(chunk), uint32(chunk*stripes)
	}
	if l.DiscardMaxBytes < chunk {
		return
	}
	if most := l.DiscardMaxBytes * stripes; most <= noMaximum {
		l.DiscardMaxBytes = most - most%(chunk*stripes)
	} else {
		l.DiscardMaxBytes = math.MaxUint32 &^ (1<<sectorShift - 1)
	}
}

// stack combines the limits of a device below, of which a part from start on is used
// (blk_stack_limits).
func (l *limits) stack(below *limits, start uint64) {
	l.WriteCache, l.FUA, l.Rotational = l.WriteCache || below.WriteCache, l.FUA || below.FUA, l.Rotational || below.Rotational
	l.MaxIOBytes = min(l.MaxIOBytes, below.MaxIOBytes)
	l.WriteZeroesMaxBytes = min(l.WriteZeroesMaxBytes, below.WriteZeroesMaxBytes)
	l.VirtBoundaryMask = smaller(l.VirtBoundaryMask, below.VirtBoundaryMask)
	l.MaxSegments = smaller(l.MaxSegments, below.MaxSegments)
	l.MaxSegmentSize = smaller(l.MaxSegmentSize, below.MaxSegmentSize)
	l.LogicalBlockSize = max(l.LogicalBlockSize, below.LogicalBlockSize)
	l.PhysicalBlockSize = max(l.PhysicalBlockSize, below.PhysicalBlockSize)
	l.IOMin, l.IOOpt = max(l.IOMin, below.IOMin), multiple(l.IOOpt, below.IOOpt)
	l.DMAAlignment = max(l.DMAAlignment, below.DMAAlignment)
	if below.ChunkBytes != 0 {
		l.ChunkBytes = divisor(l.ChunkBytes, below.ChunkBytes)
	}
	if l.IOMin%l.PhysicalBlockSize != 0 {
		l.IOMin = l.PhysicalBlockSize
	}
	if l.IOOpt%l.PhysicalBlockSize != 0 {
		l.IOOpt = 0
	}
	if l.ChunkBytes%uint64(l.PhysicalBlockSize) != 0 {
		l.ChunkBytes = 0
	}
	l.MaxIOBytes -= l.MaxIOBytes % uint64(l.LogicalBlockSize)
	l.stackDiscards(below, start)
}

func (l *limits) stackDiscards(below *limits, start uint64) {
	if below.DiscardGranularity == 0 {
		return
	}
	alignment := uint32(0)
	if unit := uint64(below.DiscardGranularity); below.DiscardMaxBytes != 0 {
		alignment = uint32((unit + uint64(below.DiscardAlignment) - start%unit) % unit)
	}
	l.DiscardMaxBytes = smaller(l.DiscardMaxBytes, below.DiscardMaxBytes)
	l.DiscardGranularity = max(l.DiscardGranularity, below.DiscardGranularity)
	l.DiscardAlignment = multiple(l.DiscardAlignment, alignment) % l.DiscardGranularity
}

// validate is what blk_validate_limits in block/blk-settings.c does to combined limits.
func (l *limits) validate() {
	l.IOMin = max(l.IOMin, l.PhysicalBlockSize)
	l.FUA = l.FUA && l.WriteCache
	if l.DiscardMaxBytes == 0 {
		l.DiscardGranularity = 0
	} else {
		l.DiscardGranularity = max(l.DiscardGranularity, l.PhysicalBlockSize)
	}
}

// smaller is min_not_zero of the kernel.
func smaller[T uint32 | uint64](a, b T) T {
	if a == 0 || b == 0 {
		return max(a, b)
	}
	return min(a, b)
}

// divisor is gcd of the kernel.
func divisor[T uint32 | uint64](a, b T) T {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// multiple is lcm_not_zero of the kernel.
func multiple(a, b uint32) uint32 {
	if a == 0 || b == 0 {
		return max(a, b)
	}
	return a / divisor(a, b) * b
}
