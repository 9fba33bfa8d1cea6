package client

// Stats is what a server's devices have done.
type Stats struct {
	// Bounds are the longest durations of the buckets, in seconds; the last
	// bucket has none.
	Bounds  []float64     `json:"bounds"`
	Devices []DeviceStats `json:"devices"`
}

// DeviceStats is what one of them has done since its server serves it.
type DeviceStats struct {
	ID        uint32    `json:"id"`
	Device    string    `json:"device"`
	File      string    `json:"file"`
	InFlight  int       `json:"in_flight"`
	Retries   uint64    `json:"retries"`
	Fallbacks uint64    `json:"fallbacks"`
	Ops       []OpStats `json:"ops"`
}

// OpStats is the part of DeviceStats that is about one operation.
type OpStats struct {
	Op       string `json:"op"`
	Requests uint64 `json:"requests"`
	Bytes    uint64 `json:"bytes"`
	Errors   uint64 `json:"errors"`
	// Seconds is the sum of the durations, and Buckets how many there are of
	// each.
	Seconds float64  `json:"seconds"`
	Buckets []uint64 `json:"buckets"`
}
