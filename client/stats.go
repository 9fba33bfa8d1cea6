package client

// Stats has the counters of the server's devices.
type Stats struct {
	// Bounds are the upper bounds of the buckets, in seconds. The last bucket has none.
	Bounds  []float64     `json:"bounds"`
	Devices []DeviceStats `json:"devices"`
}

// DeviceStats has the counters of a device since its server has served it.
type DeviceStats struct {
	ID        uint32 `json:"id"`
	Device    string `json:"device"`
	File      string `json:"file"`
	InFlight  int    `json:"in_flight"`
	Retries   uint64 `json:"retries"`
	Fallbacks uint64 `json:"fallbacks"`
	// CorruptBlocks is the number of wrong blocks that the target verity has found.
	CorruptBlocks uint64 `json:"corrupt_blocks,omitempty"`
	// Stores has the use of each store that the device writes to.
	Stores []StoreStats `json:"stores,omitempty"`
	Ops    []OpStats    `json:"ops"`
}

// StoreStats is the use of the store of a snapshot. Sizes are in bytes.
type StoreStats struct {
	File      string `json:"file"`
	Allocated uint64 `json:"allocated"` // with the metadata
	Size      uint64 `json:"size"`
	Metadata  uint64 `json:"metadata"`
	// State is Invalid or Overflow for a store that was full or has failed.
	State string `json:"state,omitempty"`
}

// OpStats has the counters of one operation of a device.
type OpStats struct {
	Op       string `json:"op"`
	Requests uint64 `json:"requests"`
	Bytes    uint64 `json:"bytes"`
	Errors   uint64 `json:"errors"`
	// Seconds is the sum of the durations. Buckets has the number of durations in each
	// bucket.
	Seconds float64  `json:"seconds"`
	Buckets []uint64 `json:"buckets"`
}
