package control

import (
	"errors"
	"io"
	"log" //nolint:depguard // http.Server takes no other
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"time"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/internal/scrapers"
	"github.com/ublk-loop/ublk-loop/loop"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// opMetrics lists the counters of each operation of a device.
var opMetrics = []struct {
	name, help string
	of         func(*ublk.OpStats) uint64
}{
	{"ublk_loop_requests_total", "Completed requests, including those that failed.", func(o *ublk.OpStats) uint64 { return o.Requests }},
	{"ublk_loop_request_bytes_total", "Bytes of the completed requests.", func(o *ublk.OpStats) uint64 { return o.Bytes }},
	{"ublk_loop_request_errors_total", "Requests that failed.", func(o *ublk.OpStats) uint64 { return o.Errors }},
}

// deviceMetrics lists the metrics of a device as a whole.
var deviceMetrics = []struct {
	name, kind, help string
	of               func(*loop.DeviceStats) uint64
}{
	{"ublk_loop_requests_in_flight", "gauge", "Requests in flight.", func(d *loop.DeviceStats) uint64 { return uint64(d.InFlight) }},
	{"ublk_loop_retries_total", "counter", "Operations on the file that were repeated.", func(d *loop.DeviceStats) uint64 { return d.Retries }},
	{"ublk_loop_register_fallbacks_total", "counter", "Requests whose pages the driver could not register without a command.", func(d *loop.DeviceStats) uint64 { return d.Fallbacks }},
	{"ublk_loop_verity_corrupt_blocks_total", "counter", "Wrong blocks that the target verity has found.", func(d *loop.DeviceStats) uint64 { return d.CorruptBlocks }},
}

// storeMetrics lists the metrics of a store that a device writes to.
var storeMetrics = []struct {
	name, help string
	of         func(*loop.StoreStats) uint64
}{
	{"ublk_loop_store_allocated_bytes", "Bytes of the store that were given out, with its metadata.", func(s *loop.StoreStats) uint64 { return s.Allocated }},
	{"ublk_loop_store_size_bytes", "Size of the store.", func(s *loop.StoreStats) uint64 { return s.Size }},
	{"ublk_loop_store_metadata_bytes", "Bytes of the store's metadata.", func(s *loop.StoreStats) uint64 { return s.Metadata }},
	{"ublk_loop_store_failed", "1 if the store is invalid or has overflowed, otherwise 0.", func(s *loop.StoreStats) uint64 {
		if s.State != "" {
			return 1
		}
		return 0
	}},
}

// writeStores writes the metrics of the stores of snapshots.
func writeStores(e *exposition, devices []loop.DeviceStats) {
	for _, m := range storeMetrics {
		e.family(m.name, "gauge", m.help)
		for i := range devices {
			for j := range devices[i].Stores {
				store := &devices[i].Stores[j]
				e.sample("", float64(m.of(store)), "device", deviceLabel(&devices[i].Device), "file", store.File)
			}
		}
	}
}

// writeMetrics writes the metrics of the server and of its devices.
func writeMetrics(e *exposition, status client.ServerStatus, devices []loop.DeviceStats) {
	e.family("ublk_loop_build_info", "gauge", "1, with the version of the server.")
	e.sample("", 1, "version", status.Version)
	e.family("ublk_loop_devices", "gauge", "Devices of the server.")
	e.sample("", float64(len(devices)))
	e.family("ublk_loop_device_info", "gauge", "1, with the device's file, buffer mode and transfer.")
	for i := range devices {
		d := &devices[i].Device
		e.sample("", 1, "device", deviceLabel(d), "id", strconv.FormatUint(uint64(d.ID), 10), "file", d.Object(),
			"buffer_mode", d.BufferMode, "transfer", d.Transfer.Name)
	}
	for _, m := range opMetrics {
		e.family(m.name, "counter", m.help)
		eachOp(devices, func(device, op string, stats *ublk.OpStats) {
			e.sample("", float64(m.of(stats)), "device", device, "op", op)
		})
	}
	for _, m := range deviceMetrics {
		e.family(m.name, m.kind, m.help)
		for i := range devices {
			e.sample("", float64(m.of(&devices[i])), "device", deviceLabel(&devices[i].Device))
		}
	}
	writeStores(e, devices)
	writeDurations(e, devices)
}

// writeDurations writes the histograms of operations with timed requests. It omits the
// others, because a histogram takes two dozen lines, and most operations have had no
// request.
func writeDurations(e *exposition, devices []loop.DeviceStats) {
	e.family("ublk_loop_request_duration_seconds", "histogram", "Durations of the timed requests.")
	bounds := durationBounds()
	eachOp(devices, func(device, op string, stats *ublk.OpStats) {
		count := stats.Duration.Count()
		if count == 0 {
			return
		}
		below := uint64(0)
		for i, bound := range bounds {
			below += stats.Duration.Buckets[i]
			e.sample("_bucket", float64(below), "device", device, "op", op, "le", strconv.FormatFloat(bound, 'g', -1, 64))
		}
		e.sample("_bucket", float64(count), "device", device, "op", op, "le", "+Inf")
		e.sample("_sum", stats.Duration.Sum.Seconds(), "device", device, "op", op)
		e.sample("_count", float64(count), "device", device, "op", op)
	})
}

func eachOp(devices []loop.DeviceStats, f func(device, op string, stats *ublk.OpStats)) {
	for i := range devices {
		for _, counted := range countedOps {
			f(deviceLabel(&devices[i].Device), counted.name, &devices[i].Ops[counted.op])
		}
	}
}

// deviceLabel returns the disk's name, as the metrics of other programs have it.
func deviceLabel(d *loop.Status) string { return filepath.Base(d.Device) }

// Metrics returns the metrics of the server and of its devices.
func (s *Server) Metrics() []byte {
	var e exposition
	writeMetrics(&e, s.Status(), s.Devices.Stats())
	return e.Bytes()
}

func (s *Server) metrics(w http.ResponseWriter, _ *http.Request) { replyMetrics(w, s.Metrics()) }

func replyMetrics(w http.ResponseWriter, metrics []byte) {
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(replyTimeout))
	w.Header().Set("Content-Type", expositionType)
	_, _ = w.Write(metrics)
}

// MetricsHTTP returns a server that serves only the metrics, to all clients. It works in any process.
func MetricsHTTP(metrics func() ([]byte, error)) *http.Server {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		text, err := metrics()
		if err != nil {
			http.Error(w, "the server gives no metrics", http.StatusServiceUnavailable)
			return
		}
		replyMetrics(w, text)
	})
	return &http.Server{
		Handler:        mux,
		ReadTimeout:    headerTimeout, // requests have no body
		IdleTimeout:    idleTimeout,
		MaxHeaderBytes: maxHeader,
		ErrorLog:       log.New(io.Discard, "", 0),
	}
}

// ServeMetrics answers the connections of a TCP listener until h is closed. The server's memory is locked, so
// that few clients are served at the same time.
func ServeMetrics(h *http.Server, l net.Listener) error {
	err := h.Serve(scrapers.Limit(l))
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}
