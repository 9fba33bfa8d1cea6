package control

import (
	"net/http"

	"github.com/ublk-loop/ublk-loop/loop"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// StatsReply is what a server's devices have done.
type StatsReply struct {
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

// countedOps are the operations that are counted, by the names that they have
// in what a server says.
var countedOps = []struct {
	op   ublk.Op
	name string
}{
	{ublk.OpRead, "read"},
	{ublk.OpWrite, "write"},
	{ublk.OpFlush, "flush"},
	{ublk.OpDiscard, "discard"},
	{ublk.OpWriteZeroes, "write_zeroes"},
}

// durationBounds returns the bounds of the buckets, in seconds.
func durationBounds() []float64 {
	bounds := make([]float64, ublk.DurationBuckets-1)
	for i := range bounds {
		bounds[i] = ublk.DurationBound(i).Seconds()
	}
	return bounds
}

// statsReply puts what devices have done in the form of the protocol.
func statsReply(devices []loop.DeviceStats) StatsReply {
	reply := StatsReply{Bounds: durationBounds(), Devices: make([]DeviceStats, len(devices))}
	for i := range devices {
		reply.Devices[i] = deviceStats(&devices[i])
	}
	return reply
}

func deviceStats(d *loop.DeviceStats) DeviceStats {
	s := DeviceStats{
		ID: d.Device.ID, Device: d.Device.Device, File: d.Device.File,
		InFlight: d.InFlight, Retries: d.Retries, Fallbacks: d.Fallbacks,
	}
	for _, counted := range countedOps {
		c := &d.Ops[counted.op]
		s.Ops = append(s.Ops, OpStats{
			Op: counted.name, Requests: c.Requests, Bytes: c.Bytes, Errors: c.Errors,
			Seconds: c.Duration.Sum.Seconds(), Buckets: c.Duration.Buckets[:],
		})
	}
	return s
}

func (s *Server) stats(w http.ResponseWriter, _ *http.Request) {
	_ = reply(w, http.StatusOK, statsReply(s.Devices.Stats()))
}
