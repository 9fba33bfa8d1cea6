package top

import (
	"strings"
	"testing"
	"time"

	"github.com/ublk-loop/ublk-loop/client"
)

// statsOf returns the counters of a device with reads of 4096 bytes each, and with the
// given buckets.
func statsOf(reads uint64, buckets ...uint64) client.DeviceStats {
	d := client.DeviceStats{ID: 0, Device: "/dev/ublkb0", File: "/srv/disk.img", InFlight: 7}
	for _, op := range []string{"read", "write", "flush", "discard", "write_zeroes"} {
		d.Ops = append(d.Ops, client.OpStats{Op: op, Buckets: make([]uint64, 4)})
	}
	d.Ops[0].Requests, d.Ops[0].Bytes = reads, reads*4096
	copy(d.Ops[0].Buckets, buckets)
	return d
}

func snapshotAt(seconds float64, devices ...client.DeviceStats) *snapshot {
	at := time.Unix(0, int64(seconds*1e9))
	return &snapshot{at, client.Stats{Bounds: []float64{1e-6, 2e-6, 4e-6}, Devices: devices}}
}

const topHeader = "DEVICE      READ/s WRITE/s OTHER/s RD-MB/s WR-MB/s    MEAN     P99 FLIGHT ERRORS  FILE\n"

func TestTable(t *testing.T) {
	before, after := statsOf(1000, 10, 0, 0, 1), statsOf(6000, 10, 50, 50, 1)
	before.Ops[0].Seconds, after.Ops[0].Seconds = 1, 1.0003
	after.Ops[1].Requests, after.Ops[1].Bytes, after.Ops[1].Errors = 10, 5e6, 2
	after.Ops[2].Requests, after.Ops[3].Requests = 4, 6
	idle := client.DeviceStats{ID: 12, Device: "/dev/ublkb12", File: "/a\nb", Ops: statsOf(0).Ops}
	got := table(snapshotAt(10, before), snapshotAt(12, after, idle))
	want := topHeader +
		"ublkb0        2500       5       5    10.2     2.5     3us  3.96us      7      2  /srv/disk.img\n" +
		"ublkb12          0       0       0     0.0     0.0       -       -      0      0  /a\\nb\n"
	if got != want {
		t.Errorf("table\n%s\nwant\n%s", got, want)
	}
}

// A terminal of 80 columns shows all figures.
func TestTableFitsTerminal(t *testing.T) {
	screen := onScreen(table(snapshotAt(0), snapshotAt(1, statsOf(1, 1))), 24, 80)
	if !strings.Contains(screen, "ERRORS"+clearLine) || !strings.Contains(screen, "7      0"+clearLine) {
		t.Errorf("80 columns show %q", screen)
	}
}

// If a counter has decreased, it belongs to another device or to an earlier server.
func TestTableAfterRestart(t *testing.T) {
	for name, before := range map[string]client.DeviceStats{
		"less":         statsOf(500),
		"another file": {ID: 0, File: "/other", Ops: statsOf(50).Ops},
		"another id":   {ID: 1, File: "/srv/disk.img", Ops: statsOf(50).Ops},
		"more timed":   statsOf(0, 1),
	} {
		got := table(snapshotAt(0, before), snapshotAt(1, statsOf(100)))
		if !strings.Contains(got, "ublkb0         100 ") || !strings.Contains(got, "       -       -      7 ") {
			t.Errorf("%s:\n%s", name, got)
		}
	}
}

func TestQuantile(t *testing.T) {
	bounds := []float64{1e-6, 2e-6, 4e-6}
	for _, tt := range []struct {
		buckets []uint64
		part    float64
		want    string
	}{
		{[]uint64{0, 0, 0, 0}, 0.99, "-"},
		{[]uint64{100, 0, 0, 0}, 0.5, "0.5us"},
		{[]uint64{0, 100, 0, 0}, 0.5, "1.5us"},
		{[]uint64{50, 0, 50, 0}, 0.99, "3.96us"},
		{[]uint64{1, 0, 0, 99}, 0.99, ">4us"},
	} {
		if got := (&work{buckets: tt.buckets}).quantile(tt.part, bounds); got != tt.want {
			t.Errorf("%v of %v is %s, want %s", tt.part, tt.buckets, got, tt.want)
		}
	}
}

func TestFormatSeconds(t *testing.T) {
	for s, want := range map[float64]string{0: "0us", 1.5e-7: "0.15us", 1.234e-5: "12.3us", 0.0123: "12.3ms", 1: "1s", 2.345: "2.35s"} {
		if got := formatSeconds(s); got != want {
			t.Errorf("%v is %s, want %s", s, got, want)
		}
	}
}
