package client

// Config says what device to make of a file. The zero value of a field is its default;
// they are the flags of ublk-loop add. Sizes are in bytes.
type Config struct {
	// ID is the device's number; nil for the first free one.
	ID       *uint32 `json:"id,omitempty"`
	ReadOnly bool    `json:"read_only"`
	// Offset is where in the file the device starts, SizeLimit the largest size of
	// the device (0 for none).
	Offset    uint64 `json:"offset"`
	SizeLimit uint64 `json:"sizelimit"`
	// SectorSize is the device's logical block size.
	SectorSize uint32 `json:"sector_size"`
	DirectIO   string `json:"direct_io"` // auto, on, off
	ZeroCopy   string `json:"zero_copy"` // auto, on, off
	PartScan   bool   `json:"partscan"`
	Queues     int    `json:"queues"`
	Depth      int    `json:"depth"`
	MaxIOBytes uint32 `json:"max_io_bytes"`
	// Transfer is for a request that comes with a key (AddRequest.Descriptors).
	Transfer Transfer `json:"transfer"`
	OnCrash  string   `json:"on_crash,omitempty"` // fail, requeue, reissue; empty for the server's default
	// Shared attaches a file though another process writes to it.
	Shared bool `json:"shared"`
}
