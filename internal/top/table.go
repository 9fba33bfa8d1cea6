package top

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/internal/report"
)

// snapshot holds the devices' counters at a time.
type snapshot struct {
	at    time.Time
	stats client.Stats
}

// rowFormat has all columns but the file within the 80 columns of a small terminal.
const rowFormat = "%-10s %7s %7s %7s %7s %7s %7s %7s %6s %6s  %s\n"

// table returns a table of the work between two snapshots.
func table(before, after *snapshot) string {
	var text strings.Builder
	fmt.Fprintf(&text, rowFormat, "DEVICE", "READ/s", "WRITE/s", "OTHER/s", "RD-MB/s", "WR-MB/s", "MEAN", "P99", "FLIGHT", "ERRORS", "FILE")
	seconds := after.at.Sub(before.at).Seconds()
	for i := range after.stats.Devices {
		now := &after.stats.Devices[i]
		w := workSince(before.find(now), now)
		fmt.Fprintf(&text, rowFormat, strings.TrimPrefix(now.Device, "/dev/"),
			fmt.Sprintf("%.0f", w.reads/seconds), fmt.Sprintf("%.0f", w.writes/seconds), fmt.Sprintf("%.0f", w.others/seconds),
			fmt.Sprintf("%.1f", w.readBytes/1e6/seconds), fmt.Sprintf("%.1f", w.writtenBytes/1e6/seconds),
			w.mean(), w.quantile(0.99, after.stats.Bounds), fmt.Sprint(now.InFlight), fmt.Sprint(errorsOf(now)), report.OneLine(now.File))
	}
	return text.String()
}

// work is the work of a device between two snapshots.
type work struct {
	reads, writes, others   float64 // numbers of requests
	readBytes, writtenBytes float64
	seconds                 float64  // total duration of the timed requests
	buckets                 []uint64 // number of timed requests in each bucket of durations
}

// workSince returns the work of a device since before, or since the device's start if
// before is nil.
func workSince(before, now *client.DeviceStats) *work {
	w := &work{}
	for i := range now.Ops {
		op := &now.Ops[i]
		was := &client.OpStats{Buckets: make([]uint64, len(op.Buckets))}
		if before != nil {
			was = &before.Ops[i]
		}
		w.add(was, op)
	}
	return w
}

func (w *work) add(was, op *client.OpStats) {
	requests, bytes := float64(op.Requests-was.Requests), float64(op.Bytes-was.Bytes)
	switch op.Op {
	case "read":
		w.reads, w.readBytes = requests, bytes
	case "write":
		w.writes, w.writtenBytes = requests, bytes
	default:
		w.others += requests
	}
	w.seconds += op.Seconds - was.Seconds
	if w.buckets == nil {
		w.buckets = make([]uint64, len(op.Buckets))
	}
	for i := range op.Buckets {
		w.buckets[i] += op.Buckets[i] - was.Buckets[i]
	}
}

func (w *work) timed() uint64 {
	n := uint64(0)
	for _, b := range w.buckets {
		n += b
	}
	return n
}

// mean returns the mean duration of the timed requests.
func (w *work) mean() string {
	if w.timed() == 0 {
		return "-"
	}
	return formatSeconds(w.seconds / float64(w.timed()))
}

// quantile estimates the duration that the given part of the requests did not exceed. As
// Prometheus' histogram_quantile does, it assumes an even distribution within a bucket.
func (w *work) quantile(part float64, bounds []float64) string {
	rank, below, low := part*float64(w.timed()), 0.0, 0.0
	if rank == 0 {
		return "-"
	}
	for i, bound := range bounds[:min(len(bounds), len(w.buckets))] {
		n := float64(w.buckets[i])
		if below+n >= rank {
			return formatSeconds(low + (bound-low)*(rank-below)/n)
		}
		below, low = below+n, bound
	}
	return ">" + formatSeconds(low)
}

// formatSeconds formats a duration with three digits.
func formatSeconds(s float64) string {
	for _, unit := range []struct {
		seconds float64
		name    string
	}{{1, "s"}, {1e-3, "ms"}} {
		if s >= unit.seconds {
			return fmt.Sprintf("%.3g", s/unit.seconds) + unit.name
		}
	}
	return fmt.Sprintf("%.3gus", s*1e6)
}

func errorsOf(d *client.DeviceStats) uint64 {
	n := uint64(0)
	for i := range d.Ops {
		n += d.Ops[i].Errors
	}
	return n
}

// find returns the snapshot's counters of a device. It returns nil if the snapshot's
// device with the id is another device, or an earlier server's.
func (s *snapshot) find(now *client.DeviceStats) *client.DeviceStats {
	i := slices.IndexFunc(s.stats.Devices, func(d client.DeviceStats) bool { return d.ID == now.ID })
	if i < 0 {
		return nil
	}
	was := &s.stats.Devices[i]
	if was.File != now.File || len(was.Ops) != len(now.Ops) {
		return nil
	}
	for i := range now.Ops {
		if !precedes(&was.Ops[i], &now.Ops[i]) {
			return nil
		}
	}
	return was
}

// precedes reports whether no counter has decreased.
func precedes(was, now *client.OpStats) bool {
	if was.Op != now.Op || was.Requests > now.Requests || was.Bytes > now.Bytes || len(was.Buckets) != len(now.Buckets) {
		return false
	}
	for i := range now.Buckets {
		if was.Buckets[i] > now.Buckets[i] {
			return false
		}
	}
	return true
}
