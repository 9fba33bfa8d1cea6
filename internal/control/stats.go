package control

import (
	"net/http"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/loop"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// countedOps lists the counted operations, with their names in metrics and replies.
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

// durationBounds returns the upper bounds of the buckets, in seconds.
func durationBounds() []float64 {
	bounds := make([]float64, ublk.DurationBuckets-1)
	for i := range bounds {
		bounds[i] = ublk.DurationBound(i).Seconds()
	}
	return bounds
}

// statsOf converts the counters of devices to the form of the protocol.
func statsOf(devices []loop.DeviceStats) client.Stats {
	reply := client.Stats{Bounds: durationBounds(), Devices: make([]client.DeviceStats, len(devices))}
	for i := range devices {
		reply.Devices[i] = deviceStats(&devices[i])
	}
	return reply
}

func deviceStats(d *loop.DeviceStats) client.DeviceStats {
	s := client.DeviceStats{
		ID: d.Device.ID, Device: d.Device.Device, File: d.Device.Object(),
		InFlight: d.InFlight, Retries: d.Retries, Fallbacks: d.Fallbacks, CorruptBlocks: d.CorruptBlocks,
	}
	for _, store := range d.Stores {
		s.Stores = append(s.Stores, client.StoreStats(store))
	}
	for _, counted := range countedOps {
		c := &d.Ops[counted.op]
		s.Ops = append(s.Ops, client.OpStats{
			Op: counted.name, Requests: c.Requests, Bytes: c.Bytes, Errors: c.Errors,
			Seconds: c.Duration.Sum.Seconds(), Buckets: c.Duration.Buckets[:],
		})
	}
	return s
}

func (s *Server) stats(w http.ResponseWriter, _ *http.Request) {
	_ = reply(w, http.StatusOK, statsOf(s.Devices.Stats()))
}
