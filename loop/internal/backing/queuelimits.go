package backing

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"math/bits"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk"
)

// queueLimits are the limits of a disk's queue, with the names and units of sysfs, except
// that all sizes are in bytes. See docs/limits.md.
type queueLimits struct {
	logicalBlockSize  uint32
	physicalBlockSize uint32
	minimumIOSize     uint32
	optimalIOSize     uint32
	maxHWBytes        uint64 // size of the largest request
	chunkBytes        uint64 // a boundary that requests do not cross; 0 for none
	start             uint64 // of a partition, on its disk
	virtBoundaryMask  uint64
	dmaAlignment      uint32 // mask
	maxSegments       uint32 // 0 if unknown
	maxSegmentSize    uint32

	discardGranularity  uint32
	discardAlignment    uint32
	discardMaxBytes     uint64
	writeZeroesMaxBytes uint64

	rotational bool
	writeCache bool
	fua        bool
	zoned      bool
}

// defaultLimits are the limits for a file whose file system has no disk (tmpfs, NFS) or
// several (btrfs): the block layer's defaults, and requests of a mebibyte.
func defaultLimits() queueLimits {
	return queueLimits{
		logicalBlockSize: 512,
		maxHWBytes:       1 << 20,
		dmaAlignment:     511,
		maxSegmentSize:   math.MaxUint32,
		writeCache:       true,
	}
}

// readLimits returns the limits of the disk, or of the disk under the file system of the
// file. Sysfs is mounted at root.
func (b *Backing) readLimits(root string) (queueLimits, error) {
	lim, err := b.readSysfs(root)
	if !b.IsDisk && errors.Is(err, fs.ErrNotExist) {
		return defaultLimits(), nil
	}
	if err != nil {
		return lim, fmt.Errorf("read queue limits: %w", err)
	}
	return lim, nil
}

// limits reads a disk's limits. Attributes that older kernels lack default to the value
// that the block layer used before: dma_alignment 5.17, virt_boundary_mask 5.12.
func (d *sysfsDisk) limits() (queueLimits, error) {
	lim := queueLimits{
		logicalBlockSize:    d.number("logical_block_size", 512),
		physicalBlockSize:   d.number("physical_block_size", 512),
		minimumIOSize:       d.number("minimum_io_size", 0),
		optimalIOSize:       d.number("optimal_io_size", 0),
		maxHWBytes:          uint64(d.number("max_hw_sectors_kb", 1024)) << 10,
		chunkBytes:          uint64(d.number("chunk_sectors", 0)) << 9,
		virtBoundaryMask:    d.number64("virt_boundary_mask", 0),
		dmaAlignment:        d.number("dma_alignment", 511),
		maxSegments:         d.number("max_segments", 0),
		maxSegmentSize:      d.number("max_segment_size", math.MaxUint32),
		discardGranularity:  d.number("discard_granularity", 0),
		discardMaxBytes:     d.number64("discard_max_bytes", 0),
		writeZeroesMaxBytes: d.number64("write_zeroes_max_bytes", 0),
		rotational:          d.number("rotational", 0) != 0,
		writeCache:          d.text(d.queue, "write_cache", "write back") != "write through",
		fua:                 d.number("fua", 0) != 0,
		zoned:               d.text(d.queue, "zoned", "none") == "host-managed",
	}
	if d.isPartition() {
		lim.start = d.ownNumber("start") << 9
		// For a whole disk this attribute shows alignment_offset
		// (disk_discard_alignment_show in block/genhd.c).
		lim.discardAlignment = uint32(min(d.ownNumber("discard_alignment"), math.MaxUint32))
	}
	return lim, d.err
}

// requestSizes returns what the largest request of a device of the backing depends on.
func (b *Backing) requestSizes() RequestSizes { return RequestSizes{b.maxIOAsked, b.queue.maxHWBytes} }

// MaxIOBytes returns the value for ublk.Options.MaxIOBytes.
func (b *Backing) MaxIOBytes(mode ublk.BufferMode) uint32 { return b.requestSizes().Wanted(mode) }

// Params returns the device's parameters for the block layer. maxIOBytes is the largest
// request that the driver allows (ublk.Info.MaxIOBytes).
//
// The form of a request's pages matters only if the pages themselves go to the disk,
// which is zero copy with direct I/O. In copy mode the data is in a page-aligned buffer
// of the server, and with buffered I/O in the page cache.
func (b *Backing) Params(mode ublk.BufferMode, maxIOBytes uint32) (ublk.Params, error) {
	largest, err := b.requestSizes().Largest(maxIOBytes, b.SectorSize)
	if err != nil {
		return ublk.Params{}, fmt.Errorf("%s: %w", b.Path, err)
	}
	physical := max(b.SectorSize, pow2Divisor(b.queue.physicalBlockSize))
	p := ublk.Params{
		Size:              b.Size,
		LogicalBlockSize:  b.SectorSize,
		PhysicalBlockSize: physical,
		IOMin:             PreferredSize(b.queue.minimumIOSize, physical),
		IOOpt:             PreferredSize(b.queue.optimalIOSize, physical),
		MaxIOBytes:        largest,
		ChunkBytes:        b.chunk(),
		ReadOnly:          b.ReadOnly,
		Rotational:        b.queue.rotational,
	}
	p.VolatileCache, p.FUA = b.cache()
	if mode.ZeroCopy() && b.Direct {
		b.addMemoryLimits(&p)
	}
	if !b.ReadOnly {
		p.Discard, p.MaxWriteZeroesBytes = b.discards()
	}
	return p, nil
}

// chunk returns the disk's chunk size if the boundaries of the device's chunks are those
// of the disk's. For a file it returns 0, because a file's blocks can be anywhere on the
// disk.
func (b *Backing) chunk() uint64 {
	chunk := b.queue.chunkBytes
	if !b.IsDisk || chunk == 0 || (b.queue.start+b.Offset)%chunk != 0 || chunk%uint64(b.SectorSize) != 0 {
		return 0
	}
	return chunk
}

// cache returns whether the device needs flushes and FUA writes. Only the disk itself can
// say that it does not: a page cache and a file system's metadata always need them.
// Direct writes with RWF_DSYNC use the disk's own FUA, so that FUA is as the disk says.
// Other backings write and flush in one operation.
func (b *Backing) cache() (volatileCache, fua bool) {
	if b.IsDisk && b.Direct {
		return b.queue.writeCache, b.queue.writeCache && b.queue.fua
	}
	return true, true
}

// addMemoryLimits adds the limits of the pages of a request. Sysfs does not have the
// boundary mask, so that the block layer's default stands for it. With a virtual
// boundary, segments have no maximum size (Linux 7.3, include/uapi/linux/ublk_cmd.h,
// struct ublk_param_segment).
func (b *Backing) addMemoryLimits(p *ublk.Params) {
	p.VirtBoundaryMask = b.queue.virtBoundaryMask
	p.DMAAlignment = min(max(b.queue.dmaAlignment, max(b.memAlign, 1)-1), uint32(unix.Getpagesize())-1)
	if b.queue.maxSegments == 0 {
		return
	}
	p.Segments = ublk.SegmentParams{
		MaxSegments:    uint16(min(b.queue.maxSegments, math.MaxUint16)),
		MaxSegmentSize: max(b.queue.maxSegmentSize, minSegmentSize),
		BoundaryMask:   math.MaxUint32,
	}
	if p.VirtBoundaryMask != 0 {
		p.Segments.MaxSegmentSize = math.MaxUint32
	}
}

// minSegmentSize is the driver's UBLK_MIN_SEGMENT_SIZE.
const minSegmentSize = 4096

// discards returns which discards and write-zeroes the backing supports. A disk reports
// that itself; a file supports all if it supports holes. Discards that the administrator
// has switched off (discard_max_bytes) are not announced. A transfer behaves like
// dm-crypt: discards are announced if they are allowed, and write-zeroes are not, because
// zeroes of the backing would be decrypted to something else. With Options.KeepSpace there are neither.
func (b *Backing) discards() (discard ublk.DiscardParams, maxZeroes uint64) {
	if b.keepSpace {
		return ublk.DiscardParams{}, 0
	}
	discardMax, zeroesMax := b.queue.discardMaxBytes, b.queue.writeZeroesMaxBytes
	granularity, start := b.queue.discardGranularity, b.queue.discardAlignment
	if b.IsDisk && !b.ringDiscard {
		discardMax = 0
	}
	if !b.IsDisk {
		discardMax, zeroesMax = 0, 0
		if b.punchHole {
			discardMax, zeroesMax = MaxHoleBytes, MaxHoleBytes
		}
		granularity, start = b.blockSize, 0
	}
	if b.TransferSize != 0 {
		zeroesMax = 0
		if !b.allowDiscards {
			discardMax = 0
		}
	}
	if discard.MaxBytes = b.holeBytes(discardMax); discard.MaxBytes != 0 {
		discard.Granularity = max(granularity, b.SectorSize)
		discard.Alignment = shiftAlignment(start, discard.Granularity, b.Offset)
	}
	return discard, b.holeBytes(zeroesMax)
}

// holeBytes limits the largest discard or write-zeroes request, in whole blocks.
func (b *Backing) holeBytes(size uint64) uint64 {
	size = min(size, MaxHoleBytes)
	return size - size%uint64(b.SectorSize)
}

// shiftAlignment returns the start of the first unit in a part at offset bytes of an
// object whose own first unit starts at start. The kernel computes the same for a
// partition (queue_limit_discard_alignment in block/blk-settings.c).
func shiftAlignment(start, granularity uint32, offset uint64) uint32 {
	unit := uint64(granularity)
	return uint32((unit + uint64(start)%unit - offset%unit) % unit)
}

// PreferredSize returns a preferred I/O size in the driver's form, a power of two up to
// 2^28: the largest power of two that divides size. It returns 0 if that is smaller than
// a block.
func PreferredSize(size, block uint32) uint32 {
	size = min(pow2Divisor(size), 1<<28)
	if size < block {
		return 0
	}
	return size
}

// pow2Divisor returns the largest power of two that divides n, 0 for 0.
func pow2Divisor(n uint32) uint32 {
	if n == 0 {
		return 0
	}
	return 1 << bits.TrailingZeros32(n)
}
