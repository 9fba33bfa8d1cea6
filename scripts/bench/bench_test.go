package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// report returns a report of two paths and two cells.
func report() *Report {
	small, large := Cell{"randread", 4096, 32, 1}, Cell{"read", 128 << 10, 8, 1}
	return &Report{
		Clock: clockInstructions, Kernel: "7.3.4", CPUs: 1, CPU: "emulated", Time: "2026-11-24T00:00:00Z",
		Results: []Result{
			{Backing: "null_blk", Path: yardstick, Cell: small, IOPS: 1000},
			{Backing: "null_blk", Path: yardstick, Cell: large, IOPS: 400},
			{Backing: "null_blk", Path: "ublk-loop", Cell: small, IOPS: 1100, ServerNs: 7000, Enters: 0.25},
			{Backing: "null_blk", Path: "ublk-loop", Cell: large, IOPS: 380},
			{Backing: "tmpfs", Path: "ublk-loop", Cell: large, IOPS: 5}, // no yardstick
		},
	}
}

func TestParseFio(t *testing.T) {
	side, err := parseFio([]byte("fio: a warning\n" + `{"jobs": [{"error": 0,
		"read": {"iops": 0, "total_ios": 0},
		"write": {"iops": 12.5, "bw_bytes": 51200, "total_ios": 25, "clat_ns": {"percentile": {"50.000000": 7, "99.000000": 8, "99.900000": 9}}}}]}`))
	if err != nil {
		t.Fatal(err)
	}
	if side.IOPS != 12.5 || side.Bytes != 51200 || side.IOs != 25 || side.percentiles() != (Percentile{7, 8, 9}) {
		t.Errorf("%+v", side)
	}
	for _, bad := range []string{"", "{}", `{"jobs": [{"error": 5}]}`, `{"jobs": [{"error": 0, "read": {"total_ios": 0}}]}`, "{"} {
		if _, err := parseFio([]byte(bad)); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

// The ratio of a first write is to dm-snapshot over the same disks.
func TestCowRatios(t *testing.T) {
	first := Cell{modeFirstWrite, 4096, 1, 1}
	r := &Report{Results: []Result{
		{Backing: "RAM disks, chunks of 16K", Path: dmSnapshotPath, Cell: first, IOPS: 100},
		{Backing: "RAM disks, chunks of 16K", Path: cowPathName, Cell: first, IOPS: 250},
		{Backing: "RAM disks, chunks of 64K", Path: cowPathName, Cell: first, IOPS: 250}, // no yardstick
	}}
	ratios := r.ratios()
	if len(ratios) != 1 || ratios[0].Ratio != 2.5 || ratios[0].yardstick() != "dm-snapshot" {
		t.Errorf("%+v", ratios)
	}
}

func TestRatios(t *testing.T) {
	ratios := report().ratios()
	if len(ratios) != 2 || ratios[0].Ratio != 1.1 || ratios[1].Ratio != 0.95 {
		t.Fatalf("%+v", ratios)
	}
	file := filepath.Join(t.TempDir(), "ratios.json")
	if err := writeRatios(file, ratios); err != nil {
		t.Fatal(err)
	}
	stored, err := readRatios(file)
	if err != nil {
		t.Fatal(err)
	}
	check := func(change float64) error {
		now := report().ratios()
		now[1].Ratio *= change
		return compare(&bytes.Buffer{}, now, stored)
	}
	if err := check(0.975); err != nil {
		t.Errorf("within the tolerance: %v", err)
	}
	if err := check(0.965); !errors.Is(err, errSlower) {
		t.Errorf("3.5 %% slower: error %v", err)
	}
	if err := compare(&bytes.Buffer{}, ratios[:1], stored); err == nil || errors.Is(err, errSlower) {
		t.Errorf("a cell is missing: error %v", err)
	}
	if err := os.WriteFile(file, []byte("[]"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readRatios(file); err == nil {
		t.Error("a file without ratios is taken")
	}
}

// compare also notices if a device takes longer to attach.
func TestRatiosOfAttach(t *testing.T) {
	r := report()
	r.StartNs.P50 = 8e6
	r.Attach = []Attach{{Path: servedName, AttachNs: Percentile{P50: 16e6}}}
	stored := r.ratios()
	if last := stored[len(stored)-1]; last.Path != servedName || last.Cell != attachCell || last.Ratio != 0.5 {
		t.Fatalf("%+v", stored)
	}
	r.Attach[0].AttachNs.P50 *= 1.09
	var out bytes.Buffer
	if err := compare(&out, r.ratios(), stored); err != nil || !strings.Contains(out.String(), servedName+", attach: 0.459 of the program's start, was 0.500") {
		t.Errorf("within the tolerance: %v\n%s", err, &out)
	}
	r.Attach[0].AttachNs.P50 *= 1.05
	if err := compare(&bytes.Buffer{}, r.ratios(), stored); !errors.Is(err, errSlower) {
		t.Errorf("14 %% slower: error %v", err)
	}
}

// compare also notices if a container with an image takes longer to start, beside one without.
func TestRatiosOfCreate(t *testing.T) {
	r := &Report{Starts: []Start{
		{Path: passPath, AtOnce: 20, Ns: Percentile{P50: 120e6}},
		{Path: createPath, AtOnce: 1, Ns: Percentile{P50: 16e6}},
		{Path: passPath, AtOnce: 1, Ns: Percentile{P50: 8e6}},
		{Path: mountPath, AtOnce: 1, Ns: Percentile{P50: 15e6}},
		{Path: createPath, AtOnce: 20, Ns: Percentile{P50: 300e6}},
	}}
	stored := r.ratios()
	if len(stored) != 1 || stored[0] != (Ratio{createPath, createCell, 0.5}) {
		t.Fatalf("%+v", stored)
	}
	for times, slower := range map[float64]bool{1.09: false, 1.12: true} {
		r.Starts[1].Ns.P50 = 16e6 * times
		var out bytes.Buffer
		err := compare(&out, r.ratios(), stored)
		if errors.Is(err, errSlower) != slower || !strings.Contains(out.String(), "of a start without an image, was 0.500") {
			t.Errorf("%v times as long: error %v\n%s", times, err, &out)
		}
	}
}

// A table of one linear line is compared with the plain device, by a fixed limit: neither a
// faster loop driver nor a slow stored ratio hides that it costs more.
func TestRatiosOfLinear(t *testing.T) {
	cell := linearCells[0]
	for speed, slower := range map[float64]bool{98: false, 97: false, 96: true} {
		r := &Report{Results: []Result{
			{Backing: "null_blk", Path: yardstick, Cell: cell, IOPS: 50},
			{Backing: "null_blk", Path: plainPath, Cell: cell, IOPS: 100},
			{Backing: "null_blk", Path: linearPath, Cell: cell, IOPS: speed},
		}}
		stored := []Ratio{{linearPath, cell, 0.9}}
		if err := compare(&bytes.Buffer{}, r.ratios(), stored); errors.Is(err, errSlower) != slower || !slower && err != nil {
			t.Errorf("%v of 100: %v", speed, err)
		}
	}
}

func TestMean(t *testing.T) {
	slower := report()
	slower.Results[2].IOPS = 900
	list, err := mean([]*Report{report(), slower})
	if err != nil || len(list) != 2 || list[0].Ratio != 1.0 || list[1].Ratio != 0.95 {
		t.Errorf("%+v, error %v", list, err)
	}
	slower.Results = slower.Results[:3]
	if _, err := mean([]*Report{report(), slower}); err == nil {
		t.Error("a report with a cell less is taken")
	}
}

func TestPercentiles(t *testing.T) {
	var sample []time.Duration
	for i := range 100 {
		sample = append(sample, time.Duration(100-i))
	}
	if got := percentilesOf(sample); got != (Percentile{50, 99, 100}) {
		t.Errorf("%+v", got)
	}
	if got := percentilesOf([]time.Duration{3}); got != (Percentile{3, 3, 3}) {
		t.Errorf("of one: %+v", got)
	}
}

// Every figure shows its clock.
func TestTable(t *testing.T) {
	r := report()
	r.Memory = &Memory{Queues: 2, Depth: 128, RSS: 8 << 20}
	var out bytes.Buffer
	if err := writeTable(&out, r); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"clock: instructions of one emulated CPU", "ublk-loop, randread 4k x32", "1100", "0.25", "tmpfs", "RSS 8.0 MiB"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out.String())
		}
	}
	for line := range strings.Lines(out.String()) {
		if strings.Contains(line, ", rand") && !strings.Contains(line, clockInstructions) {
			t.Errorf("no clock: %s", line)
		}
	}
}

func TestPlots(t *testing.T) {
	dir := t.TempDir()
	files, err := writePlots(report(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != 2 || filepath.Base(files[0]) != "bench-null-blk.svg" || filepath.Base(files[1]) != "bench-tmpfs.svg" {
		t.Fatalf("%q", files)
	}
	svg, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"<svg", "ublk-loop", "loop, direct", "randread 4k x32", "instructions"} {
		if !strings.Contains(string(svg), want) {
			t.Errorf("%q is not in the chart", want)
		}
	}
}

func TestFullMatrix(t *testing.T) {
	cells := fullCells(8)
	seen := map[string]bool{}
	for _, c := range cells {
		seen[c.String()] = true
	}
	if len(cells) != 4*5*3*2 || len(seen) != len(cells) {
		t.Errorf("%d cells, %d names", len(cells), len(seen))
	}
}

func TestFields(t *testing.T) {
	file := filepath.Join(t.TempDir(), "meminfo")
	if err := os.WriteFile(file, []byte("Slab:    12 kB\nkernel_stack 3\nkernel 77\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]int64{"Slab:": 12 << 10, "kernel ": 77} {
		if got, err := field(file, name); got != want || err != nil {
			t.Errorf("%s %d, error %v, want %d", name, got, err, want)
		}
	}
	if _, err := field(file, "Rss:"); err == nil {
		t.Error("a line that is not there has a number")
	}
}

// check and plot read a report.
func TestReadReport(t *testing.T) {
	data, err := json.Marshal(report())
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "report.json")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := readReport(file)
	if err != nil || len(r.Results) != 5 || r.find("null_blk", yardstick, Cell{"randread", 4096, 32, 1}).IOPS != 1000 {
		t.Errorf("%+v, error %v", r, err)
	}
}
