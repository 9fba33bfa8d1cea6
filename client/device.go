package client

import (
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/identity"
)

// Device describes a device of ublk-loop. Its JSON is stable and documented in
// docs/json.md. Sizes are in bytes.
type Device struct {
	ID     uint32 `json:"id"`
	Device string `json:"device"`  // /dev/ublkbN
	MajMin string `json:"maj:min"` // of the block device, empty when it is gone
	// DiskSequence distinguishes the block device from others that have had its number. It
	// is 0 when the block device is gone, and before the device starts.
	DiskSequence uint64 `json:"diskseq"`
	// Tag is the tag that the driver keeps with the device, 0 if it is unknown. A server does
	// not report it.
	Tag   uint64 `json:"-"`
	State string `json:"state"` // the driver's state: live, dead, …
	PID   int    `json:"pid"`   // of the server, 0 when it is gone

	File       string `json:"file"`         // absolute path when it was attached
	FileDevice string `json:"file_maj:min"` // of the file system, or of a disk itself
	FileInode  uint64 `json:"file_inode"`
	FileIsDisk bool   `json:"file_is_disk"` // a disk, a partition or a dm device

	// Table is the text of the tables that the device serves, without keys. It is empty for a
	// device of one file. Files are the files and disks below the tables, in the order of the
	// text. A device of tables has no File, and the fields for that are empty.
	Table string       `json:"table,omitempty"`
	Files []DeviceFile `json:"files,omitempty"`

	Size       uint64 `json:"size"`
	Offset     uint64 `json:"offset"`
	SizeLimit  uint64 `json:"sizelimit"`
	ReadOnly   bool   `json:"read_only"`
	DirectIO   bool   `json:"direct_io"`
	BufferMode string `json:"buffer_mode"` // copy, register, auto-register
	CopyReason string `json:"copy_reason"` // asked, transfer, kernel, offset, checksums; empty if BufferMode is not copy
	PartScan   bool   `json:"partscan"`
	Ref        string `json:"ref"`       // text that was given for the device, empty for none
	Autoclear  bool   `json:"autoclear"` // removed when it is no longer in use
	OnCrash    string `json:"on_crash"`  // fail, requeue, reissue
	Queues     int    `json:"queues"`
	Depth      int    `json:"depth"`

	Transfer Transfer `json:"transfer"`
	// Verity is "V" for a device with the target verity, "C" after the first wrong block, and
	// empty for other devices.
	Verity string `json:"verity,omitempty"`
	// Stores has the use of each store that the device writes to. Only the command list fills it
	// in, from the Stats of the device's server.
	Stores []StoreStats `json:"stores,omitempty"`

	Limits Limits `json:"limits"`
}

// DeviceFile is a file or disk below the tables of a device.
type DeviceFile struct {
	File   string `json:"file"`         // absolute path when it was attached
	Device string `json:"file_maj:min"` // of the file system, or of a disk itself
	Inode  uint64 `json:"file_inode"`
	IsDisk bool   `json:"file_is_disk"` // a disk, a partition or a dm device
}

// Transfer describes how the bytes of a device differ from those of its file.
type Transfer struct {
	Name           string `json:"name"`        // none, xor, aes-xts-plain64, aes-xts-plain
	KeyBytes       int    `json:"key_bytes"`   // length of the key
	SectorSize     uint32 `json:"sector_size"` // number of bytes that are encrypted as a unit
	IVOffset       uint64 `json:"iv_offset"`   // in sectors of 512 bytes
	IVLargeSectors bool   `json:"iv_large_sectors"`
	AllowDiscards  bool   `json:"allow_discards"`
	LUKS           int    `json:"luks"` // version of the header, 0 for none
	UUID           string `json:"luks_uuid"`
	LUKSOffset     uint64 `json:"luks_offset"` // offset in the file of the header, or of the data if the header is detached
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

// CheckPart returns an error that wraps ESTALE if a file is not the one with an index among Files.
func (d *Device) CheckPart(index int, file *os.File) error {
	object, err := identity.Of(file)
	if err != nil {
		return err
	}
	if index >= len(d.Files) || !object.HasNumbersOf(d.Files[index].identity()) {
		return fmt.Errorf("%s is another file than that of %s: %w", file.Name(), d.Device, unix.ESTALE)
	}
	return nil
}

// identity returns the identity of the file, as far as the server reports it.
func (f *DeviceFile) identity() identity.File {
	return identity.File{IsDisk: f.IsDisk, Device: f.Device, Inode: f.Inode}
}

// identity returns the identity of the device's file, as far as the server reports it.
func (d *Device) identity() identity.File {
	return identity.File{IsDisk: d.FileIsDisk, Device: d.FileDevice, Inode: d.FileInode}
}

// isOrLike reports whether other is the same device. If the server reports too little for
// that, it reports whether other has the same content.
func (d *Device) isOrLike(other *Device) bool {
	if d.DiskSequence != 0 && other.DiskSequence != 0 {
		return d.DiskSequence == other.DiskSequence
	}
	return d.hasContentOf(other)
}

// hasContentOf reports whether both devices serve the same part of the same file, or the same
// tables of the same files, with the same access.
func (d *Device) hasContentOf(other *Device) bool {
	if d.Table != "" {
		return d.Table == other.Table && slices.Equal(d.Files, other.Files) && d.ReadOnly == other.ReadOnly
	}
	return d.identity().HasNumbersOf(other.identity()) && d.ReadOnly == other.ReadOnly &&
		d.Offset == other.Offset && d.SizeLimit == other.SizeLimit && d.Transfer == other.Transfer
}
