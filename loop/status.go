package loop

import "github.com/ublk-loop/ublk-loop/ublk"

// Status is what is known of one of our devices, as `list --json` prints it.
// Keys are stable; sizes are in bytes.
type Status struct {
	ID     uint32 `json:"id"`
	Device string `json:"device"`  // /dev/ublkbN
	MajMin string `json:"maj:min"` // of the block device, empty when it is gone
	State  string `json:"state"`   // live, dead, …: the driver's word
	PID    int    `json:"pid"`     // of the server, 0 when it is gone

	File       string `json:"file"`         // absolute path when it was attached
	FileDevice string `json:"file_maj:min"` // of the file system, or of a disk itself
	FileInode  uint64 `json:"file_inode"`
	FileIsDisk bool   `json:"file_is_disk"` // a disk, a partition or a dm device

	Size       uint64 `json:"size"`
	Offset     uint64 `json:"offset"`
	SizeLimit  uint64 `json:"sizelimit"`
	ReadOnly   bool   `json:"read_only"`
	DirectIO   bool   `json:"direct_io"`
	BufferMode string `json:"buffer_mode"` // copy, register, auto-register
	PartScan   bool   `json:"partscan"`
	Autoclear  bool   `json:"autoclear"` // goes when nobody uses it
	OnCrash    string `json:"on_crash"`  // fail, requeue, reissue
	Queues     int    `json:"queues"`
	Depth      int    `json:"depth"`

	Transfer TransferConfig `json:"transfer"`

	Limits Limits `json:"limits"`
}

// Limits are the queue limits of a device, named as in sysfs (queue/…).
type Limits struct {
	LogicalBlockSize    uint32 `json:"logical_block_size"`
	PhysicalBlockSize   uint32 `json:"physical_block_size"`
	MinimumIOSize       uint32 `json:"minimum_io_size"`
	OptimalIOSize       uint32 `json:"optimal_io_size"`
	MaxIOBytes          uint32 `json:"max_hw_sectors_bytes"`
	ChunkBytes          uint64 `json:"chunk_bytes"`
	VirtBoundaryMask    uint64 `json:"virt_boundary_mask"`
	DMAAlignment        uint32 `json:"dma_alignment"`
	MaxSegments         uint32 `json:"max_segments"`
	MaxSegmentSize      uint32 `json:"max_segment_size"`
	DiscardGranularity  uint32 `json:"discard_granularity"`
	DiscardAlignment    uint32 `json:"discard_alignment"`
	DiscardMaxBytes     uint64 `json:"discard_max_bytes"`
	WriteZeroesMaxBytes uint64 `json:"write_zeroes_max_bytes"`
	Rotational          bool   `json:"rotational"`
	WriteCache          bool   `json:"write_cache"`
	FUA                 bool   `json:"fua"`
}

// limitsOf names a device's parameters as sysfs does.
func limitsOf(p *ublk.Params) Limits {
	return Limits{
		LogicalBlockSize:    p.LogicalBlockSize,
		PhysicalBlockSize:   p.PhysicalBlockSize,
		MinimumIOSize:       p.IOMin,
		OptimalIOSize:       p.IOOpt,
		MaxIOBytes:          p.MaxSectors << 9,
		ChunkBytes:          uint64(p.ChunkSectors) << 9,
		VirtBoundaryMask:    p.VirtBoundaryMask,
		DMAAlignment:        p.DMAAlignment,
		MaxSegments:         uint32(p.Segments.MaxSegments),
		MaxSegmentSize:      p.Segments.MaxSegmentSize,
		DiscardGranularity:  p.Discard.Granularity,
		DiscardAlignment:    p.Discard.Alignment,
		DiscardMaxBytes:     uint64(p.Discard.MaxSectors) << 9,
		WriteZeroesMaxBytes: uint64(p.MaxWriteZeroesSectors) << 9,
		Rotational:          p.Rotational,
		WriteCache:          p.VolatileCache,
		FUA:                 p.FUA,
	}
}
