package backing

// Limits are the limits that a stack of tables combines (blk_stack_limits in
// block/blk-settings.c): those of the disk, or of a device that serves the whole file.
// Sizes are in bytes.
type Limits struct {
	LogicalBlockSize  uint32
	PhysicalBlockSize uint32
	IOMin             uint32
	IOOpt             uint32
	MaxIOBytes        uint64
	ChunkBytes        uint64
	VirtBoundaryMask  uint64
	DMAAlignment      uint32
	MaxSegments       uint32 // 0 for no limit
	MaxSegmentSize    uint32

	DiscardMaxBytes     uint64 // 0 for no discards
	DiscardGranularity  uint32
	DiscardAlignment    uint32 // of the start of the file or disk
	WriteZeroesMaxBytes uint64

	Rotational bool
	WriteCache bool
	FUA        bool
}

// Limits returns the limits of the backing in a stack. zeroCopy says that the pages of
// requests go to the disk (see Params).
func (b *Backing) Limits(zeroCopy bool) Limits {
	l := Limits{
		LogicalBlockSize:  b.SectorSize,
		PhysicalBlockSize: max(b.SectorSize, pow2Divisor(b.queue.physicalBlockSize)),
		IOMin:             b.queue.minimumIOSize,
		IOOpt:             b.queue.optimalIOSize,
		MaxIOBytes:        b.queue.maxHWBytes,
		DMAAlignment:      defaultDMAAlignment,
		Rotational:        b.queue.rotational,
	}
	if b.IsDisk {
		l.ChunkBytes = b.queue.chunkBytes
	}
	if zeroCopy && b.Direct {
		l.VirtBoundaryMask, l.DMAAlignment = b.queue.virtBoundaryMask, max(b.queue.dmaAlignment, max(b.memAlign, 1)-1)
		l.MaxSegments, l.MaxSegmentSize = b.queue.maxSegments, b.queue.maxSegmentSize
	}
	l.WriteCache, l.FUA = b.cache()
	discard, zeroes := b.discards()
	l.DiscardMaxBytes, l.WriteZeroesMaxBytes = discard.MaxBytes, zeroes
	l.DiscardGranularity, l.DiscardAlignment = discard.Granularity, discard.Alignment
	return l
}

// Transforms reports whether the device has other bytes than the file.
func (b *Backing) Transforms() bool { return b.TransferSize != 0 }

// defaultDMAAlignment is the mask of a stacked device (blk_set_stacking_limits).
const defaultDMAAlignment = 511
