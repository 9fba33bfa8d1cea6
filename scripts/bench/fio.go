package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// fioArgs returns the command line of a cell on a device.
func fioArgs(device string, c Cell, runtime time.Duration) []string {
	return jobArgs(device, c, "--time_based", fmt.Sprintf("--runtime=%dms", runtime.Milliseconds()))
}

// oneIOArgs is fioArgs for a job that ends after its first I/O.
func oneIOArgs(device string, c Cell) []string { return jobArgs(device, c, "--number_ios=1") }

func jobArgs(device string, c Cell, length ...string) []string {
	args := []string{
		"fio", "--name=bench", "--filename=" + device, "--rw=" + c.Mode, "--bs=" + strconv.Itoa(c.Bytes),
		"--iodepth=" + strconv.Itoa(c.Depth), "--numjobs=" + strconv.Itoa(c.Jobs), "--group_reporting", "--thread",
		"--ioengine=io_uring", "--direct=1", "--norandommap", "--randrepeat=1",
		"--percentile_list=50:99:99.9", "--output-format=json",
	}
	return append(args, length...)
}

// fioOutput is the part of fio's JSON that the benchmark uses.
type fioOutput struct {
	Jobs []struct {
		Error int     `json:"error"`
		Read  fioSide `json:"read"`
		Write fioSide `json:"write"`
	} `json:"jobs"`
}

type fioSide struct {
	IOPS    float64 `json:"iops"`
	Bytes   float64 `json:"bw_bytes"`
	IOs     int64   `json:"total_ios"`
	Latency struct {
		Percentile map[string]float64 `json:"percentile"`
	} `json:"clat_ns"`
}

// runFio runs a job and returns the direction (read or write) that did I/O.
func runFio(args []string) (fioSide, error) {
	var out []byte
	// By chance, about one job in a hundred would have its buffers in a huge
	// page. A large request then has one segment and takes a third of the time.
	err := withoutHugePages(func() (err error) {
		out, err = exec.Command(args[0], args[1:]...).Output()
		return err
	})
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s", err, exit.Stderr)
		}
		return fioSide{}, fmt.Errorf("run %s: %w", strings.Join(args, " "), err)
	}
	return parseFio(out)
}

// parseFio parses fio's output, which can begin with warnings.
func parseFio(out []byte) (fioSide, error) {
	var parsed fioOutput
	start := strings.IndexByte(string(out), '{')
	if start < 0 {
		return fioSide{}, fmt.Errorf("fio printed no JSON: %q", out)
	}
	if err := json.Unmarshal(out[start:], &parsed); err != nil {
		return fioSide{}, fmt.Errorf("parse fio's output: %w", err)
	}
	if len(parsed.Jobs) != 1 || parsed.Jobs[0].Error != 0 {
		return fioSide{}, fmt.Errorf("fio's jobs: %+v", parsed.Jobs)
	}
	side := parsed.Jobs[0].Read
	if parsed.Jobs[0].Write.IOs > 0 {
		side = parsed.Jobs[0].Write
	}
	if side.IOs == 0 {
		return fioSide{}, errors.New("fio did no I/O")
	}
	return side, nil
}

func (s *fioSide) percentiles() Percentile {
	p := s.Latency.Percentile
	return Percentile{p["50.000000"], p["99.000000"], p["99.900000"]}
}
