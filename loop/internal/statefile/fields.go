package statefile

// Config is the configuration with which the device was made. The zero value of a field
// is the default of that time.
type Config struct {
	ID        *uint32 `json:"id,omitempty"`
	ReadOnly  bool    `json:"read_only"`
	Offset    uint64  `json:"offset"`
	SizeLimit uint64  `json:"sizelimit"`
	// WholeSectors leaves out the part of a sector at the end.
	WholeSectors bool     `json:"whole_sectors,omitempty"`
	SectorSize   uint32   `json:"sector_size"`
	DirectIO     string   `json:"direct_io"`
	ZeroCopy     string   `json:"zero_copy"`
	PartScan     bool     `json:"partscan"`
	Queues       int      `json:"queues"`
	Depth        int      `json:"depth"`
	MaxIOBytes   uint32   `json:"max_io_bytes"`
	Transfer     Transfer `json:"transfer"`
	OnCrash      string   `json:"on_crash,omitempty"`
	Shared       bool     `json:"shared"`
	KeepSpace    bool     `json:"keep_space,omitempty"`
	Autoclear    bool     `json:"autoclear,omitempty"`
	// ManyDevices says that the server also has other devices.
	ManyDevices bool `json:"many_devices,omitempty"`
	// Table is the text of the device's tables, without keys; empty for a device of one file.
	Table string `json:"table,omitempty"`
	// Ref is a text of the user's that names the device.
	Ref string `json:"ref,omitempty"`
}

// File is a file or disk below the device's tables.
type File struct {
	Path   string `json:"file"`         // absolute path when it was attached
	Device string `json:"file_maj:min"` // of the file system, or of a disk itself
	Inode  uint64 `json:"file_inode"`
	IsDisk bool   `json:"file_is_disk"`
	Birth  int64  `json:"file_birth,omitempty"`
	Disk   Disk   `json:"file_disk,omitzero"`
}

// Disk is an identity.Disk.
type Disk struct {
	Sequence uint64 `json:"sequence,omitempty"`
	Start    uint64 `json:"start,omitempty"` // of a partition, in sectors of 512 bytes
	Size     uint64 `json:"size,omitempty"`
	Name     string `json:"dm_name,omitempty"`
	UUID     string `json:"dm_uuid,omitempty"`
}

// Status is the status of the device.
type Status struct {
	ID     uint32 `json:"id"`
	Device string `json:"device"`  // /dev/ublkbN
	MajMin string `json:"maj:min"` // of the block device, empty when it is gone
	// DiskSequence distinguishes the block device from others that have had its number.
	// It is 0 when the block device is gone.
	DiskSequence uint64 `json:"diskseq,omitempty"`
	State        string `json:"state"` // the driver's state: live, dead, …
	PID          int    `json:"pid"`   // of the server, 0 when it is gone

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
	CopyReason string `json:"copy_reason,omitempty"`
	PartScan   bool   `json:"partscan"`
	Autoclear  bool   `json:"autoclear"` // removed when it is no longer in use
	OnCrash    string `json:"on_crash"`  // fail, requeue, reissue
	Queues     int    `json:"queues"`
	Depth      int    `json:"depth"`

	Transfer Transfer `json:"transfer"`
	Verity   string   `json:"verity,omitempty"`

	Limits Limits `json:"limits"`
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
