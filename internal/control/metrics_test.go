package control

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/loop"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// someStats returns the counters of two devices, one of which has had no request.
func someStats() []loop.DeviceStats {
	busy := loop.DeviceStats{
		Device: loop.Status{
			ID: 0, Device: "/dev/ublkb0", File: "/srv/\"a\\b\nc\xff.img", BufferMode: "copy", Transfer: loop.TransferConfig{Name: "xor"},
		},
		InFlight: 3,
	}
	busy.Retries, busy.Fallbacks = 4, 5
	busy.Stores = []loop.StoreStats{
		{File: "/a.cow", Allocated: 3 << 40, Size: 4 << 40, Metadata: 131072},
		{File: "/b.cow", Allocated: 8192, Size: 8192, Metadata: 4096, State: "Invalid"},
	}
	reads := &busy.Ops[ublk.OpRead]
	reads.Requests, reads.Bytes, reads.Errors = 1<<40, 1<<52, 6
	reads.Duration.Buckets[0], reads.Duration.Buckets[2], reads.Duration.Buckets[ublk.DurationBuckets-1] = 2, 1, 1
	reads.Duration.Sum = 2500 * time.Millisecond
	return []loop.DeviceStats{busy, {Device: loop.Status{ID: 12, Device: "/dev/ublkb12", File: "/x", BufferMode: "auto-register"}}}
}

func someMetrics() *exposition {
	var e exposition
	writeMetrics(&e, client.ServerStatus{Version: "v1"}, someStats())
	return &e
}

func TestMetrics(t *testing.T) {
	e := someMetrics()
	text := e.String()
	for _, want := range []string{
		"# TYPE ublk_loop_build_info gauge\n" + `ublk_loop_build_info{version="v1"} 1` + "\n",
		"ublk_loop_devices 2\n",
		`ublk_loop_device_info{device="ublkb0",id="0",file="/srv/\"a\\b\nc�.img",buffer_mode="copy",transfer="xor"} 1` + "\n",
		`ublk_loop_requests_total{device="ublkb0",op="read"} 1099511627776` + "\n",
		`ublk_loop_request_bytes_total{device="ublkb0",op="read"} 4503599627370496` + "\n",
		`ublk_loop_request_errors_total{device="ublkb0",op="read"} 6` + "\n",
		`ublk_loop_requests_total{device="ublkb12",op="write_zeroes"} 0` + "\n",
		`ublk_loop_requests_in_flight{device="ublkb0"} 3` + "\n",
		`ublk_loop_retries_total{device="ublkb0"} 4` + "\n",
		`ublk_loop_register_fallbacks_total{device="ublkb0"} 5` + "\n",
		`ublk_loop_store_allocated_bytes{device="ublkb0",file="/a.cow"} 3298534883328` + "\n",
		`ublk_loop_store_size_bytes{device="ublkb0",file="/a.cow"} 4398046511104` + "\n",
		`ublk_loop_store_metadata_bytes{device="ublkb0",file="/b.cow"} 4096` + "\n",
		`ublk_loop_store_failed{device="ublkb0",file="/a.cow"} 0` + "\n",
		`ublk_loop_store_failed{device="ublkb0",file="/b.cow"} 1` + "\n",
		`ublk_loop_request_duration_seconds_bucket{device="ublkb0",op="read",le="1.024e-06"} 2` + "\n",
		`ublk_loop_request_duration_seconds_bucket{device="ublkb0",op="read",le="4.096e-06"} 3` + "\n",
		`ublk_loop_request_duration_seconds_bucket{device="ublkb0",op="read",le="2.147483648"} 3` + "\n",
		`ublk_loop_request_duration_seconds_bucket{device="ublkb0",op="read",le="+Inf"} 4` + "\n",
		`ublk_loop_request_duration_seconds_sum{device="ublkb0",op="read"} 2.5` + "\n",
		`ublk_loop_request_duration_seconds_count{device="ublkb0",op="read"} 4` + "\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("metrics lack %q", want)
		}
	}
	if t.Failed() {
		t.Log(text)
	}
	// Each operation has 22 buckets, +Inf, the sum and the count.
	if n := strings.Count(text, "\nublk_loop_request_duration_seconds"); n != 25 {
		t.Errorf("%d lines of durations, want those of one operation, 25", n)
	}
}

// Prometheus' own parser reads the same metrics from the text.
func TestMetricsFormat(t *testing.T) {
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(&someMetrics().Buffer)
	if err != nil {
		t.Fatal(err)
	}
	for name, family := range families {
		if family.GetHelp() == "" || !strings.HasPrefix(name, "ublk_loop_") {
			t.Errorf("%s: help %q", name, family.GetHelp())
		}
	}
	info := families["ublk_loop_device_info"].GetMetric()
	if len(info) != 2 || info[0].GetLabel()[2].GetValue() != "/srv/\"a\\b\nc\uFFFD.img" {
		t.Errorf("devices are %v", info)
	}
	h := families["ublk_loop_request_duration_seconds"].GetMetric()[0].GetHistogram()
	buckets := h.GetBucket()
	if h.GetSampleCount() != 4 || len(buckets) != ublk.DurationBuckets || buckets[21].GetCumulativeCount() != 3 || buckets[22].GetCumulativeCount() != 4 {
		t.Errorf("durations are %v", h)
	}
}

// docs/metrics.md describes each metric, and no others.
func TestMetricsDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	var documented []string
	for _, row := range regexp.MustCompile("(?m)^\\| `(ublk_loop_[a-z_]+)`").FindAllStringSubmatch(string(text), -1) {
		documented = append(documented, row[1])
	}
	if exported := familyNames(); !slices.Equal(slices.Sorted(slices.Values(documented)), exported) {
		t.Errorf("docs/metrics.md has %q, the server %q", documented, exported)
	}
}

func familyNames() []string {
	var names []string
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (\S+)`).FindAllStringSubmatch(someMetrics().String(), -1) {
		names = append(names, m[1])
	}
	slices.Sort(names)
	return names
}

// The metrics have all names and labels that docs/grafana.json uses.
func TestDashboard(t *testing.T) {
	data, err := os.ReadFile("../../docs/grafana.json")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard any
	if err := json.Unmarshal(data, &dashboard); err != nil {
		t.Fatal(err)
	}
	text := someMetrics().String()
	found := 0
	eachQuery(dashboard, func(query string) {
		found++
		for _, name := range regexp.MustCompile(`ublk_loop_[a-z_]+`).FindAllString(query, -1) {
			if !strings.Contains(text, "\n"+name+"{") && !strings.Contains(text, "\n"+name+" ") {
				t.Errorf("%s: there is no %s", query, name)
			}
		}
		for _, m := range regexp.MustCompile(`(?:by|on|group_left) ?\(([^()]*)\)|[{,] *([a-z_]+)=~?"`).FindAllStringSubmatch(query, -1) {
			for label := range strings.SplitSeq(m[1]+m[2], ",") {
				if label = strings.TrimSpace(label); label != "instance" && !strings.Contains(text, label+`="`) {
					t.Errorf("%s: there is no label %q", query, label)
				}
			}
		}
	})
	if found < 5 {
		t.Errorf("the dashboard has %d queries", found)
	}
}

// eachQuery calls f for each expression of a panel or a variable.
func eachQuery(v any, f func(query string)) {
	switch v := v.(type) {
	case []any:
		for _, item := range v {
			eachQuery(item, f)
		}
	case map[string]any:
		for key, item := range v {
			if query, ok := item.(string); ok && (key == "expr" || key == "query" && strings.Contains(query, "(")) {
				f(query)
				continue
			}
			eachQuery(item, f)
		}
	}
}

func TestStatsEndpoints(t *testing.T) {
	s := newStand(t)
	s.devices.mu.Lock()
	s.devices.stats = someStats()
	s.devices.mu.Unlock()
	for path, want := range map[string]string{
		"/metrics":  `ublk_loop_requests_total{device="ublkb0",op="read"} 1099511627776`,
		"/v1/stats": `"op":"read","requests":1099511627776,"bytes":4503599627370496,"errors":6,"seconds":2.5,"buckets":[2,0,1,`,
	} {
		if status, body := s.send(t, request("GET", path)); status != 200 || !strings.Contains(body, want) {
			t.Errorf("%s: %d %s, want 200 with %q", path, status, body, want)
		}
	}
	stats, err := client.New(s.socket).Stats(t.Context())
	if err != nil || len(stats.Devices) != 2 || stats.Devices[0].Ops[0].Requests != 1<<40 || len(stats.Bounds) != ublk.DurationBuckets-1 {
		t.Errorf("a client gets %+v, error %v", stats, err)
	}
}

// The TCP server serves the metrics, and nothing else.
func TestMetricsOverTCP(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	devices := &fakeDevices{stats: someStats()}
	api := &Server{Devices: devices, Status: func() client.ServerStatus { return client.ServerStatus{} }}
	var fault error
	h := MetricsHTTP(func() ([]byte, error) { return api.Metrics(), fault })
	served := make(chan error, 1)
	go func() { served <- ServeMetrics(h, l) }()
	t.Cleanup(func() {
		if err := errors.Join(h.Close(), <-served); err != nil {
			t.Error(err)
		}
	})
	url := "http://" + l.Addr().String()
	for path, want := range map[string]int{"/metrics": 200, "/": 404, "/v1/stats": 404, "/v1/devices": 404, "/v1/server": 404} {
		resp, err := http.Get(url + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || resp.StatusCode != want {
			t.Errorf("GET %s: %s, error %v; want %d", path, resp.Status, err, want)
		}
		if want == 200 && (!bytes.Contains(body, []byte("ublk_loop_devices 2\n")) || resp.Header.Get("Content-Type") != expositionType) {
			t.Errorf("GET %s: %s: %s", path, resp.Header.Get("Content-Type"), body)
		}
	}
	fault = io.ErrUnexpectedEOF // of the process that has the metrics
	resp, err := http.Get(url + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("without metrics: %s", resp.Status)
	}
	resp, err = http.Post(url+"/metrics", "text/plain", nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST: %s", resp.Status)
	}
}
