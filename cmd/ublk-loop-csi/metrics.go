package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"path"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ublk-loop/ublk-loop/cmd/ublk-loop-csi/driver"
	"github.com/ublk-loop/ublk-loop/internal/scrapers"
)

// metrics counts the calls of the driver. The zero value is ready for use.
type metrics struct {
	mu      sync.Mutex // protects what is below
	calls   map[call]int
	seconds map[string]float64 // by method
}

// call is a kind of call.
type call struct {
	method string
	code   codes.Code
}

// count counts a call.
func (m *metrics) count(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	begun := time.Now()
	reply, err := handler(ctx, req)
	method := path.Base(info.FullMethod)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.calls == nil {
		m.calls, m.seconds = map[call]int{}, map[string]float64{}
	}
	m.calls[call{method, status.Code(err)}]++
	m.seconds[method] += time.Since(begun).Seconds()
	return reply, err
}

// write writes the metrics in the text format of Prometheus, version 0.0.4.
func (m *metrics) write(w io.Writer, u driver.Usage) {
	for _, g := range []struct {
		name, help string
		value      int64
	}{
		{"ublk_loop_csi_volumes", "Volumes of this node.", int64(u.Volumes)},
		{"ublk_loop_csi_snapshots", "Snapshots of this node.", int64(u.Snapshots)},
		{"ublk_loop_csi_layers", "Layers that volumes and snapshots share.", int64(u.Layers)},
		{"ublk_loop_csi_pool_size_bytes", "Size of the pool's file system.", u.PoolSize},
		{"ublk_loop_csi_pool_free_bytes", "Free bytes of the pool's file system.", u.PoolFree},
		{"ublk_loop_csi_allocated_bytes", "Bytes that images take. Shared blocks count in each image.", u.Allocated},
		{"ublk_loop_csi_promised_bytes", "Sizes of the volumes, and bytes of snapshots and layers.", u.Promised},
		{"ublk_loop_csi_available_bytes", "Largest size of a new thin volume.", u.Available},
	} {
		fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s gauge\n%s %d\n", g.name, g.help, g.name, g.name, g.value)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	const calls, seconds = "ublk_loop_csi_calls_total", "ublk_loop_csi_call_seconds_total"
	fmt.Fprintf(w, "# HELP %s Calls that the driver has answered.\n# TYPE %s counter\n", calls, calls)
	for _, c := range slices.SortedFunc(maps.Keys(m.calls), compareCalls) {
		fmt.Fprintf(w, "%s{method=%q,code=%q} %d\n", calls, c.method, c.code, m.calls[c])
	}
	fmt.Fprintf(w, "# HELP %s Time that the calls took.\n# TYPE %s counter\n", seconds, seconds)
	for _, method := range slices.Sorted(maps.Keys(m.seconds)) {
		fmt.Fprintf(w, "%s{method=%q} %g\n", seconds, method, m.seconds[method])
	}
}

func compareCalls(a, b call) int {
	if a.method != b.method {
		if a.method < b.method {
			return -1
		}
		return 1
	}
	return int(a.code) - int(b.code)
}

// These bound a request for the metrics.
const (
	metricsTimeout = 10 * time.Second
	metricsHeader  = 16 << 10 // bytes
)

// serve answers GET /metrics at an address, and nothing else there, until stop is called. An
// empty address stands for no metrics.
func (m *metrics) serve(address string, d *driver.Driver, failed func(error)) (stop func(), err error) {
	if address == "" {
		return func() {}, nil
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("--metrics: %w", err)
	}
	server := &http.Server{
		Handler: m.handler(d.Usage, failed), ReadTimeout: metricsTimeout, WriteTimeout: metricsTimeout, IdleTimeout: metricsTimeout, MaxHeaderBytes: metricsHeader,
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := server.Serve(scrapers.Limit(l)); !errors.Is(err, http.ErrServerClosed) {
			failed(err)
		}
	}()
	return func() {
		_ = server.Close()
		<-ended
	}, nil
}

// handler answers requests for the metrics one after another, because each reads where all images of the pool
// have their blocks, and any pod may ask.
func (m *metrics) handler(usage func() (driver.Usage, error), failed func(error)) http.Handler {
	reading := make(chan struct{}, 1)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) {
		select {
		case reading <- struct{}{}:
		case <-r.Context().Done():
			return
		}
		u, err := usage()
		<-reading
		if err != nil {
			http.Error(w, "the pool cannot be read; the log of the driver says why", http.StatusInternalServerError)
			failed(err)
			return
		}
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		m.write(w, u)
	})
	return mux
}
