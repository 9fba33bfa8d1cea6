package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ublk-loop/ublk-loop/cmd/ublk-loop-csi/driver"
	"github.com/ublk-loop/ublk-loop/cmd/ublk-loop-csi/pool"
	"github.com/ublk-loop/ublk-loop/internal/scrapers"
)

// Calls are counted by method and code, and the gauges have the numbers of the pool.
func TestMetrics(t *testing.T) {
	var m metrics
	for _, code := range []codes.Code{codes.OK, codes.OK, codes.NotFound} {
		info := &grpc.UnaryServerInfo{FullMethod: "/csi.v1.Node/NodeStageVolume"}
		_, err := m.count(t.Context(), nil, info, func(context.Context, any) (any, error) { return nil, status.Error(code, "") })
		if status.Code(err) != code {
			t.Errorf("error %v, want %v", err, code)
		}
	}
	var out bytes.Buffer
	m.write(&out, driver.Usage{Volumes: 1, Snapshots: 2, Layers: 3, PoolSize: 4, PoolFree: 5, Allocated: 6, Promised: 7, Available: 8})
	text := out.String()
	for i, name := range []string{"volumes", "snapshots", "layers", "pool_size_bytes", "pool_free_bytes", "allocated_bytes", "promised_bytes", "available_bytes"} {
		if want := "\nublk_loop_csi_" + name + " " + string(rune('1'+i)) + "\n"; !strings.Contains(text, want) {
			t.Errorf("%q is missing in:\n%s", want, text)
		}
	}
	for _, want := range []string{
		`ublk_loop_csi_calls_total{method="NodeStageVolume",code="OK"} 2`, `ublk_loop_csi_calls_total{method="NodeStageVolume",code="NotFound"} 1`,
		`ublk_loop_csi_call_seconds_total{method="NodeStageVolume"} `,
	} {
		if !strings.Contains(text, "\n"+want) {
			t.Errorf("%q is missing in:\n%s", want, text)
		}
	}
	doc, err := os.ReadFile("../../docs/kubernetes.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (\S+)`).FindAllStringSubmatch(text, -1) {
		if !strings.Contains(string(doc), "`"+m[1]+"`") {
			t.Errorf("docs/kubernetes.md lacks %s", m[1])
		}
	}
}

// Only the path /metrics answers, with the volumes of the pool, and only until the end.
func TestMetricsPort(t *testing.T) {
	p, err := pool.Open(filepath.Join(t.TempDir(), "pool"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.Close() }()
	id := pool.ID(pool.Volumes, "n", "v")
	if err := errors.Join(p.Volumes.Write(id, &pool.Volume{ID: id, State: pool.Ready, Size: 1 << 20}), p.Volumes.Create(id, 1<<20, false)); err != nil {
		t.Fatal(err)
	}
	d, err := driver.New(p, driver.Options{Node: "n", Overcommit: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	var m metrics
	address := freeAddress(t)
	stop, err := m.serve(address, d, func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	code, text := get(t, "http://"+address+"/metrics")
	if code != http.StatusOK || !strings.Contains(text, "\nublk_loop_csi_volumes 1\n") || !strings.Contains(text, "\nublk_loop_csi_promised_bytes 1048576\n") {
		t.Errorf("status %d:\n%s", code, text)
	}
	if code, _ := get(t, "http://"+address+"/"); code != http.StatusNotFound {
		t.Errorf("status %d of another path", code)
	}
	if _, err := m.serve(address, d, nil); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("a used address: error %v", err)
	}
	stop()
	if _, err := net.Dial("tcp", address); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("after the end: error %v", err)
	}
}

// The pool is read for one request at a time, however many clients ask.
func TestMetricsOneByOne(t *testing.T) {
	var m metrics
	var calls atomic.Int32
	asked, goOn, done := make(chan struct{}), make(chan struct{}), make(chan struct{})
	h := m.handler(func() (u driver.Usage, err error) {
		if calls.Add(1) == 1 {
			close(asked)
			<-goOn
		}
		return u, nil
	}, func(err error) { t.Error(err) })
	request := httptest.NewRequest(http.MethodGet, "/metrics", nil)
	go func() {
		h.ServeHTTP(httptest.NewRecorder(), request)
		close(done)
	}()
	<-asked
	gone, leave := context.WithCancel(t.Context())
	leave()
	h.ServeHTTP(httptest.NewRecorder(), request.WithContext(gone))
	if n := calls.Load(); n != 1 {
		t.Errorf("the pool is read %d times", n)
	}
	close(goOn)
	<-done
}

// The driver refuses one client of its metrics more than the maximum.
func TestMetricsClients(t *testing.T) {
	var m metrics
	address := freeAddress(t)
	stop, err := m.serve(address, &driver.Driver{}, func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	for i := range scrapers.Max + 1 {
		c, err := net.Dial("tcp", address)
		if err == nil {
			err = c.SetReadDeadline(time.Now().Add(metricsTimeout / 2)) // the driver ends an idle connection later
		}
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		if i < scrapers.Max {
			continue
		}
		if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("one client too many: %v", err)
		}
	}
}

// freeAddress returns an address that nothing listens at.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

func get(t *testing.T, url string) (code int, text string) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	all, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(all)
}
