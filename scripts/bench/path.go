package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// path is a driver between a job and a backing.
type path struct {
	name string
	// attach attaches a file and returns the path of the device. detach removes
	// the device.
	attach func(file string) (device string, err error)
	detach func(device string) error
	// server is a word in the command line of the server process, "" without a
	// server process.
	server string
	how    string // the command, for the report
	// cached is set if I/O goes through the file's page cache. The cache is
	// then filled first, so that the disk is not measured.
	cached bool
	// diskOnly is set if the path works only for a disk.
	diskOnly bool
}

func barePath() path {
	return path{
		name: "bare", how: "the backing itself",
		attach: func(file string) (string, error) { return file, nil },
		detach: func(string) error { return nil },
	}
}

func kernelLoop(direct string) path {
	return path{
		name: "loop, " + map[string]string{"on": "direct", "off": "buffered"}[direct], how: "losetup --direct-io=" + direct, cached: direct == "off",
		attach: func(file string) (string, error) {
			return output("losetup", "--find", "--show", "--direct-io="+direct, file)
		},
		detach: func(device string) error { return command("losetup", "--detach", device) },
	}
}

// ublkLoop is ublk-loop, with flags of add.
func ublkLoop(bin, name string, flags ...string) path {
	return path{
		name: strings.TrimSpace("ublk-loop " + name), how: "ublk-loop add " + strings.Join(flags, " "),
		server: "-of-add", // server-of-add, and requests-of-add
		cached: slices.Contains(flags, "--direct-io=off"),
		attach: func(file string) (string, error) {
			return output(bin, append(append([]string{"add"}, flags...), file)...)
		},
		detach: func(device string) error { return command(bin, "del", device) },
	}
}

// linearPath is the name of the path of linearTable, and plainPath that of the same device
// without a table.
const (
	linearPath = "ublk-loop linear"
	plainPath  = "ublk-loop --max-io=1M"
)

// linearTable is ublk-loop with a table of one linear line, with flags of add.
func linearTable(bin string, flags ...string) path {
	p := ublkLoop(bin, "linear", append([]string{"--table", "TABLE"}, flags...)...)
	p.attach = func(disk string) (string, error) {
		sectors, err := output("blockdev", "--getsz", disk)
		if err != nil {
			return "", err
		}
		table, err := os.CreateTemp("", "ublk-loop-bench")
		if err != nil {
			return "", err
		}
		defer func() { _ = os.Remove(table.Name()) }()
		_, err = fmt.Fprintf(table, "0 %s linear %s 0\n", sectors, disk)
		if err = errors.Join(err, table.Close()); err != nil {
			return "", err
		}
		return output(bin, append([]string{"add", "--table", table.Name()}, flags...)...)
	}
	p.diskOnly = true
	return p
}

// kublk is the kernel's own test server for ublk.
func kublk(bin, name string, queues, depth int, flags ...string) path {
	args := append([]string{"add", "-t", "loop", "-q", strconv.Itoa(queues), "-d", strconv.Itoa(depth)}, flags...)
	return path{
		name: strings.TrimSpace("kublk " + name), how: "kublk " + strings.Join(args, " "), server: "kublk", diskOnly: true,
		attach: func(file string) (string, error) {
			before, err := ublkDisks()
			if err != nil {
				return "", err
			}
			if err := command(bin, append(args, file)...); err != nil {
				return "", err
			}
			return newDisk(before)
		},
		detach: func(device string) error {
			return command(bin, "del", "-n", strings.TrimPrefix(device, "/dev/ublkb"))
		},
	}
}

func ublkDisks() ([]string, error) { return filepath.Glob("/dev/ublkb*") }

func newDisk(before []string) (string, error) {
	now, err := ublkDisks()
	if err != nil {
		return "", err
	}
	for _, disk := range now {
		if !slices.Contains(before, disk) {
			return disk, nil
		}
	}
	return "", fmt.Errorf("no new device beside %q", before)
}

// serverPIDs returns the processes that serve the path's devices.
func (p *path) serverPIDs() ([]int, error) {
	if p.server == "" {
		return nil, nil
	}
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, file := range files {
		line, err := os.ReadFile(file)
		pid, _ := strconv.Atoi(strings.Split(file, "/")[2])
		if err == nil && strings.Contains(string(line), p.server) && pid != os.Getpid() {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}
