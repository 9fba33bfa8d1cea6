package client

// Config describes the device to make of a file. The zero value of a field is its
// default. The fields are the flags of ublk-loop add. Sizes are in bytes.
type Config struct {
	// ID is the device's number; nil means the first free number.
	ID       *uint32 `json:"id,omitempty"`
	ReadOnly bool    `json:"read_only"`
	// Offset is the start of the device in the file. SizeLimit is the maximum size of the
	// device, 0 for no limit.
	Offset    uint64 `json:"offset"`
	SizeLimit uint64 `json:"sizelimit"`
	// WholeSectors leaves out bytes at the end that fill no sector.
	WholeSectors bool `json:"whole_sectors,omitempty"`
	// SectorSize is the device's logical block size.
	SectorSize uint32 `json:"sector_size"`
	DirectIO   string `json:"direct_io"` // auto, on, off
	ZeroCopy   string `json:"zero_copy"` // auto, on, off
	PartScan   bool   `json:"partscan"`
	Queues     int    `json:"queues"`
	Depth      int    `json:"depth"`
	MaxIOBytes uint32 `json:"max_io_bytes"`
	// Transfer needs a request with a key (AddRequest.Descriptors).
	Transfer Transfer `json:"transfer"`
	OnCrash  string   `json:"on_crash,omitempty"` // fail, requeue, reissue; empty for the server's default
	// Shared attaches a file even if another process writes to it.
	Shared bool `json:"shared"`
	// KeepSpace keeps the space that the file has: the device has neither discards nor
	// write-zeroes.
	KeepSpace bool `json:"keep_space,omitempty"`
	// Ref is a text that names the device, at most 63 bytes; empty for none.
	Ref string `json:"ref,omitempty"`
}
