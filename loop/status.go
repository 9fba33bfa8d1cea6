package loop

import (
	"cmp"
	"slices"
	"strings"

	"github.com/ublk-loop/ublk-loop/ublk"
)

// Status describes a device of ublk-loop. Sizes are in bytes.
type Status struct {
	ID     uint32
	Device string // /dev/ublkbN
	MajMin string // major:minor of the block device, empty if it is gone
	// DiskSequence distinguishes the block device from others that have had its number.
	// It is 0 if the block device is gone, and before the device starts.
	DiskSequence uint64
	// Tag is the tag that the driver keeps with the device from the time when it is added.
	// The server of the device gives it, and repeats it after 1024 devices.
	Tag   uint64
	State string // the driver's state: live, dead, …
	PID   int    // of the server, 0 if it has ended

	File       string // absolute path when it was attached
	FileDevice string // major:minor of the file system, or of a disk itself
	FileInode  uint64
	FileIsDisk bool // a disk, a partition or a dm device

	// Table is the text of the tables that the device serves, without keys. It is empty for
	// a device of one file. Files are the files and disks below the tables, in the order of
	// the text. File and the fields for it are empty then.
	Table string
	Files []StatusFile

	Size       uint64
	Offset     uint64
	SizeLimit  uint64
	ReadOnly   bool
	DirectIO   bool
	BufferMode string // copy, register, auto-register
	CopyReason string // CopyAsked and the others, if BufferMode is copy; otherwise empty
	PartScan   bool
	Ref        string // Config.Ref
	Autoclear  bool   // removed when it is no longer in use
	OnCrash    string // fail, requeue, reissue
	Queues     int
	Depth      int

	Transfer TransferConfig
	// Verity is VerityValid or VerityCorrupt for a device with the target verity, and empty for
	// others.
	Verity string

	Limits Limits
}

// These are the values of Status.Verity, as dmsetup status has them. A device stays corrupt
// after the first wrong block.
const (
	VerityValid   = "V"
	VerityCorrupt = "C"
)

// StatusFile is a file or disk below the tables of a device.
type StatusFile struct {
	File   string // absolute path when it was attached
	Device string // major:minor of the file system, or of a disk itself
	Inode  uint64
	IsDisk bool // a disk, a partition or a dm device
}

// Object returns the path of the device's file, or says that the device is one of tables and
// has the paths of the files below them.
func (s *Status) Object() string {
	if s.Table == "" {
		return s.File
	}
	paths := []string{}
	for _, f := range s.Files {
		if !slices.Contains(paths, f.File) {
			paths = append(paths, f.File)
		}
	}
	return "table of " + cmp.Or(strings.Join(paths, ", "), "no file")
}

// Limits are the queue limits of a device, named as in sysfs (queue/…).
type Limits struct {
	LogicalBlockSize    uint32
	PhysicalBlockSize   uint32
	MinimumIOSize       uint32
	OptimalIOSize       uint32
	MaxIOBytes          uint32
	ChunkBytes          uint64
	VirtBoundaryMask    uint64
	DMAAlignment        uint32
	MaxSegments         uint32
	MaxSegmentSize      uint32
	DiscardGranularity  uint32
	DiscardAlignment    uint32
	DiscardMaxBytes     uint64
	WriteZeroesMaxBytes uint64
	Rotational          bool
	WriteCache          bool
	FUA                 bool
}

// limitsOf returns a device's parameters under their names in sysfs.
func limitsOf(p *ublk.Params) Limits {
	return Limits{
		LogicalBlockSize:    p.LogicalBlockSize,
		PhysicalBlockSize:   p.PhysicalBlockSize,
		MinimumIOSize:       p.IOMin,
		OptimalIOSize:       p.IOOpt,
		MaxIOBytes:          p.MaxIOBytes,
		ChunkBytes:          p.ChunkBytes,
		VirtBoundaryMask:    p.VirtBoundaryMask,
		DMAAlignment:        p.DMAAlignment,
		MaxSegments:         uint32(p.Segments.MaxSegments),
		MaxSegmentSize:      p.Segments.MaxSegmentSize,
		DiscardGranularity:  p.Discard.Granularity,
		DiscardAlignment:    p.Discard.Alignment,
		DiscardMaxBytes:     p.Discard.MaxBytes,
		WriteZeroesMaxBytes: p.MaxWriteZeroesBytes,
		Rotational:          p.Rotational,
		WriteCache:          p.VolatileCache,
		FUA:                 p.FUA,
	}
}
