package main

import (
	"encoding/json"
	"fmt"
	"os"
)

// Report holds all results of a run, and the data needed to repeat it.
type Report struct {
	Time     string            `json:"time"`   // RFC 3339, UTC
	Clock    string            `json:"clock"`  // clock of the figures, see below
	Kernel   string            `json:"kernel"` // uname -r
	CPU      string            `json:"cpu"`    // model name
	CPUs     int               `json:"cpus"`
	Versions map[string]string `json:"versions"` // versions of the programs
	Results  []Result          `json:"results"`
	StartNs  Percentile        `json:"start_ns"` // ublk-loop, from start to end
	Attach   []Attach          `json:"attach"`
	Starts   []Start           `json:"starts,omitempty"` // of containers
	Memory   *Memory           `json:"memory,omitempty"`
}

// These are the possible clocks of figures.
const (
	clockMachine      = "machine"      // the clock of the machine, or of a virtual machine under KVM
	clockInstructions = "instructions" // one instruction of the only CPU is a nanosecond (QEMU -icount)
)

// Result is the result of one job over one path.
type Result struct {
	Backing string `json:"backing"`
	Path    string `json:"path"`
	Add     string `json:"add"` // how the device was made
	Cell
	Fio []string `json:"fio"` // the command line

	IOPS           float64    `json:"iops"`
	BytesPerSecond float64    `json:"bytes_per_second"`
	LatencyNs      Percentile `json:"latency_ns"`
	// CPUNs is the time of all CPUs for an I/O, including fio. ServerNs is the
	// time of the server's process, 0 without a server.
	CPUNs    float64 `json:"cpu_ns_per_io"`
	ServerNs float64 `json:"server_ns_per_io"`
	// Enters is the number of io_uring_enter calls of the server for an I/O,
	// counted in a separate run; 0 without a server.
	Enters float64 `json:"enters_per_io"`
	// WrittenPerIO is what reached the disks for an I/O of a snapshot, in bytes.
	WrittenPerIO float64 `json:"written_per_io,omitempty"`
	// TreeReads is the number of reads of the disk with the hash tree.
	TreeReads int64 `json:"tree_reads,omitempty"`
}

// Percentile holds three percentiles.
type Percentile struct {
	P50  float64 `json:"p50"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p99_9"`
}

// Attach holds the durations of attach and detach.
type Attach struct {
	Path     string     `json:"path"`
	Times    int        `json:"times"`
	AttachNs Percentile `json:"attach_ns"`
	DetachNs Percentile `json:"detach_ns"`
}

// Memory is the memory of an idle device, in bytes.
type Memory struct {
	Queues int   `json:"queues"`
	Depth  int   `json:"depth"`
	RSS    int64 `json:"rss"` // RSS of the processes
	PSS    int64 `json:"pss"`
	// Slab and Kernel are the growth for each device, averaged over several
	// devices. Slab is the kernel's slab, and Kernel is all kernel memory that
	// is charged to the servers' cgroup.
	Slab   int64 `json:"slab"`
	Kernel int64 `json:"cgroup_kernel"`
}

// find returns the result of a cell over a path, or nil if it was not measured.
func (r *Report) find(backing, path string, c Cell) *Result {
	for i := range r.Results {
		if x := &r.Results[i]; x.Backing == backing && x.Path == path && x.Cell == c {
			return x
		}
	}
	return nil
}

func readReport(path string) (*Report, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var r Report
	if err := json.Unmarshal(data, &r); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return &r, nil
}
