package e2e

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// opCount holds the counters of an operation of a device.
type opCount struct{ requests, bytes, errors int }

// metric returns the value of a metric, which must exist.
func (m *many) metric(text, name string) int {
	m.b.Helper()
	for line := range strings.Lines(text) {
		if value, found := strings.CutPrefix(line, name+" "); found {
			n, err := strconv.Atoi(strings.TrimSpace(value))
			if err != nil {
				m.b.Fatal(err)
			}
			return n
		}
	}
	m.b.Fatalf("the metrics lack %s:\n%s", name, text)
	return 0
}

// metrics returns the server's metrics of now. Those of a device whose process has not answered
// within a second are of its last answer, so that only a server that answers sooner had the answers
// of all.
func (m *many) metrics() (text string) {
	m.b.Helper()
	waitUntil(m.b, "the server answers within a second", func() bool {
		asked := time.Now()
		text = m.curl("-f", "http://x/metrics")
		return time.Since(asked) < time.Second
	})
	return text
}

// counts returns the counters of a device's operations from the server's metrics.
func (m *many) counts(s client.Device) map[string]opCount {
	m.b.Helper()
	text := m.metrics()
	counts := map[string]opCount{}
	for _, op := range []string{"read", "write", "flush", "discard", "write_zeroes"} {
		of := func(name string) int {
			return m.metric(text, fmt.Sprintf(`ublk_loop_%s{device=%q,op=%q}`, name, filepath.Base(s.Device), op))
		}
		counts[op] = opCount{of("requests_total"), of("request_bytes_total"), of("request_errors_total")}
	}
	return counts
}

// checkCounts compares the increase of the counters, by operation.
func (m *many) checkCounts(s client.Device, before, want map[string]opCount) {
	m.b.Helper()
	for op, now := range m.counts(s) {
		was := before[op]
		if got := (opCount{now.requests - was.requests, now.bytes - was.bytes, now.errors - was.errors}); got != want[op] {
			m.b.Errorf("%s, %s: requests, bytes, errors: %d, want %d", s.BufferMode, op, got, want[op])
		}
	}
}

// directDisk opens a device for direct I/O, and returns it with suitable memory.
func (b *bed) directDisk(s client.Device) (*os.File, []byte) {
	b.Helper()
	f, err := os.OpenFile(s.Device, os.O_RDWR|unix.O_DIRECT, 0)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = f.Close() })
	mem, err := unix.Mmap(-1, 0, 64<<10, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = unix.Munmap(mem) })
	return f, mem
}

// In each buffer mode, the metrics count each request once, with its bytes.
func TestKernelMetrics(t *testing.T) {
	b := kernelBed(t)
	m := b.serve()
	for _, zeroCopy := range []string{"auto", "off"} {
		t.Run("zero copy "+zeroCopy, func(t *testing.T) {
			b := b.in(t)
			m := &many{b: b, cmd: m.cmd}
			image := b.image(8 << 20)
			s := b.add("--zero-copy="+zeroCopy, "--direct-io=off", image)
			t.Cleanup(func() { b.del(s.Device) }) // after the test has closed the device
			disk, mem := b.directDisk(s)
			before := m.counts(s)
			for i := range int64(300) { // more than the kernel completes in a row on its own
				if _, err := disk.WriteAt(mem[:4096], i*4096); err != nil {
					t.Fatal(err)
				}
			}
			for i := range int64(20) {
				if _, err := disk.ReadAt(mem, i<<16); err != nil {
					t.Fatal(err)
				}
			}
			if err := disk.Sync(); err != nil {
				t.Fatal(err)
			}
			b.tool("blkdiscard", "--force", "--offset", "1M", "--length", "1M", s.Device)
			m.checkCounts(s, before, map[string]opCount{
				"write": {300, 300 * 4096, 0}, "read": {20, 20 << 16, 0}, "flush": {1, 0, 0}, "discard": {1, 1 << 20, 0},
			})
			m.checkFailing(s, image)
			m.checkOthers(s, image)
		})
	}
}

// checkFailing reads beyond the new end of a device's file.
func (m *many) checkFailing(s client.Device, image string) {
	m.b.Helper()
	disk, mem := m.b.directDisk(s)
	if err := os.Truncate(image, 4<<20); err != nil {
		m.b.Fatal(err)
	}
	before := m.counts(s)
	if _, err := disk.ReadAt(mem, 6<<20); err == nil {
		m.b.Error("what the file has no more can be read")
	}
	m.checkCounts(s, before, map[string]opCount{"read": {1, 64 << 10, 1}})
	if err := os.Truncate(image, 8<<20); err != nil {
		m.b.Fatal(err)
	}
}

// checkOthers checks the metrics that do not belong to an operation.
func (m *many) checkOthers(s client.Device, image string) {
	m.b.Helper()
	name := filepath.Base(s.Device)
	text := m.metrics()
	for _, want := range []string{
		"\nublk_loop_devices 1\n", "\nublk_loop_build_info{version=",
		fmt.Sprintf("ublk_loop_device_info{device=%q,id=\"%d\",file=%q,buffer_mode=%q,transfer=\"none\"} 1\n", name, s.ID, image, s.BufferMode),
		fmt.Sprintf("ublk_loop_requests_in_flight{device=%q} 0\n", name),
	} {
		if !strings.Contains(text, want) {
			m.b.Errorf("the metrics lack %s:\n%s", want, text)
		}
	}
	for _, op := range []string{"write", "flush", "discard"} {
		if n := m.metric(text, fmt.Sprintf(`ublk_loop_request_duration_seconds_count{device=%q,op=%q}`, name, op)); n == 0 {
			m.b.Errorf("no %s has been timed", op)
		}
	}
	if top := m.b.ok("top", "--count=1", "--interval=100ms"); !strings.Contains(top, "\n"+name+" ") || !strings.Contains(top, image) {
		m.b.Errorf("top shows\n%s", top)
	}
}

// The TCP server of --metrics has only the metrics, and survives an upgrade.
func TestKernelMetricsOverTCP(t *testing.T) {
	b := kernelBed(t)
	b.tool("ip", "link", "set", "lo", "up")
	address := freeAddress(t)
	m := b.serve("--on-crash=reissue", "--metrics", address)
	s := b.add(b.image(1 << 20))
	for range 2 {
		if text := b.tool("curl", "-s", "-S", "-f", "http://"+address+"/metrics"); !strings.Contains(text, filepath.Base(s.Device)) {
			t.Errorf("the metrics lack %s:\n%s", s.Device, text)
		}
		for _, path := range []string{"/v1/devices", "/v1/stats", "/"} {
			if code := b.tool("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "http://"+address+path); code != "404" {
				t.Errorf("%s answers %s", path, code)
			}
		}
		b.ok("upgrade")
	}
	b.run("serve", "--socket", filepath.Join(t.TempDir(), "s"), "--metrics", address).fails(t, 1, address)
	m.serves(s)
}

// publisherPSS is what the process for clients of --metrics may have, in KiB, while 16 clients are connected and the
// text describes 20 devices.
const publisherPSS = 7800

// The process for clients of --metrics has little memory, however often and by how many it is asked.
func TestKernelMetricsMemory(t *testing.T) {
	b := kernelBed(t, ublktest.Plain, ublktest.Waits)
	b.tool("ip", "link", "set", "lo", "up")
	address := freeAddress(t)
	m := b.serve("--metrics", address)
	for range 20 {
		b.add(b.image(1 << 20))
	}
	ask := func() error {
		response, err := http.Get("http://" + address + "/metrics")
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, response.Body)
		return errors.Join(err, response.Body.Close())
	}
	for range 15 { // of the 16 that may be connected (maxScrapers)
		client, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = client.Close() }()
	}
	for range 60 {
		if err := ask(); err != nil {
			t.Fatal(err)
		}
	}
	pss := b.memoryOf(b.publisherOf(m.pid()))["Pss:"]
	if t.Logf("%d KiB", pss); pss == 0 || pss > publisherPSS {
		t.Errorf("the process for clients has %d KiB, limit %d", pss, publisherPSS)
	}
}

// The TCP server of --metrics is a process without privileges, a new one after an upgrade. When it is killed, only
// the metrics are gone: their clients are refused until the next upgrade.
func TestKernelMetricsConfined(t *testing.T) {
	b := kernelBed(t, ublktest.Plain)
	b.tool("ip", "link", "set", "lo", "up")
	address := freeAddress(t)
	m := b.serve("--on-crash=reissue", "--metrics", address)
	s := b.add(b.image(1 << 20))
	for range 2 {
		publisher := b.publisherOf(m.pid())
		b.checkConfinedAs(publisher, m.pid(), 0x70400000)
		if adj := b.readFile(fmt.Sprintf("/proc/%d/oom_score_adj", publisher)); adj != "0\n" {
			t.Errorf("its oom_score_adj is %q", adj)
		}
		for _, name := range []string{"ublk", "disk.img", "[io_uring]"} {
			if n := b.openFiles(publisher, name); n > 0 {
				t.Errorf("the process for clients has %d files %q open", n, name)
			}
		}
		b.ok("upgrade")
		if next := b.publisherOf(m.pid()); next == publisher {
			t.Error("the process for clients has survived the upgrade")
		}
	}
	if err := unix.Kill(b.publisherOf(m.pid()), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, "the end of the process is in the log", func() bool { return strings.Contains(m.errOut.String(), "serve metrics") })
	client, err := net.Dial("tcp", address)
	if err == nil {
		_ = client.Close()
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("a client gets %v, want ECONNREFUSED", err)
	}
	m.serves(s)
	b.ok("upgrade")
	if text := b.tool("curl", "-s", "-S", "-f", "http://"+address+"/metrics"); !strings.Contains(text, filepath.Base(s.Device)) {
		t.Errorf("after the upgrade the metrics lack %s:\n%s", s.Device, text)
	}
}

// freeAddress returns an unused address.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
