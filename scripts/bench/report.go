package main

import (
	"encoding/json"
	"fmt"
	"os"
)

// Report is all that a run has found, and what is needed to repeat it.
type Report struct {
	Time     string            `json:"time"`   // RFC 3339, UTC
	Clock    string            `json:"clock"`  // what a second is: see clocks
	Kernel   string            `json:"kernel"` // uname -r
	CPU      string            `json:"cpu"`    // model name
	CPUs     int               `json:"cpus"`
	Versions map[string]string `json:"versions"` // of the programs that were run
	Results  []Result          `json:"results"`
	StartNs  Percentile        `json:"start_ns"` // of our program, to its end
	Attach   []Attach          `json:"attach"`
	Memory   *Memory           `json:"memory,omitempty"`
}

// The clocks that figures can be by.
const (
	clockMachine      = "machine"      // the machine's own, or that of a virtual machine under KVM
	clockInstructions = "instructions" // a nanosecond is an instruction of the one CPU (QEMU -icount)
)

// Result is what one job did over one path.
type Result struct {
	Backing string `json:"backing"`
	Path    string `json:"path"`
	Add     string `json:"add"` // how the device was made
	Cell
	Fio []string `json:"fio"` // the command line

	IOPS           float64    `json:"iops"`
	BytesPerSecond float64    `json:"bytes_per_second"`
	LatencyNs      Percentile `json:"latency_ns"`
	// CPUNs is what an I/O takes of all CPUs, fio's part included; ServerNs
	// what the server's process takes, 0 where there is none.
	CPUNs    float64 `json:"cpu_ns_per_io"`
	ServerNs float64 `json:"server_ns_per_io"`
	// Enters is how often the server calls io_uring_enter for an I/O, counted
	// in a run of its own; 0 where there is no server.
	Enters float64 `json:"enters_per_io"`
}

// Percentile holds three percentiles.
type Percentile struct {
	P50  float64 `json:"p50"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p99_9"`
}

// Attach is how long it takes to make a device and to remove it.
type Attach struct {
	Path     string     `json:"path"`
	Times    int        `json:"times"`
	AttachNs Percentile `json:"attach_ns"`
	DetachNs Percentile `json:"detach_ns"`
}

// Memory is what an idle device takes, in bytes.
type Memory struct {
	Queues int   `json:"queues"`
	Depth  int   `json:"depth"`
	RSS    int64 `json:"rss"` // of the server
	PSS    int64 `json:"pss"`
	// Slab and Kernel are the growth, for each of several devices, of the
	// kernel's slab and of all that the kernel charges to the servers' cgroup.
	Slab   int64 `json:"slab"`
	Kernel int64 `json:"cgroup_kernel"`
}

// find returns the result of a cell over a path, nil if it was not measured.
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
