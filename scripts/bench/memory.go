package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// idleDevices is the number of devices over which the kernel's memory is
// averaged.
const idleDevices = 8

const cgroup = "/sys/fs/cgroup/ublk-loop-bench"

// idleMemory measures the memory of an idle device of ublk-loop. Each device
// has its own file and processes.
func idleMemory(p *path, queues, depth int) (*Memory, error) {
	dir, err := os.MkdirTemp("", "ublk-loop-bench")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	leave, err := enterCgroup()
	if err != nil {
		return nil, err
	}
	m := &Memory{Queues: queues, Depth: depth}
	err = m.measure(p, dir)
	return m, errors.Join(err, leave())
}

func (m *Memory) measure(p *path, dir string) error {
	slab, err := field("/proc/meminfo", "Slab:")
	if err != nil {
		return err
	}
	kernel, err := field(cgroup+"/memory.stat", "kernel ")
	if err != nil {
		return err
	}
	var devices []string
	defer func() {
		for _, device := range devices {
			_ = p.detach(device)
		}
	}()
	for i := range idleDevices {
		device, err := attachSparse(p, filepath.Join(dir, strconv.Itoa(i)))
		if err != nil {
			return err
		}
		devices = append(devices, device)
		if i == 0 { // while no other server shares the program's text
			if err := m.measureServer(p); err != nil {
				return err
			}
		}
	}
	slabNow, err1 := field("/proc/meminfo", "Slab:")
	kernelNow, err2 := field(cgroup+"/memory.stat", "kernel ")
	m.Slab, m.Kernel = (slabNow-slab)/idleDevices, (kernelNow-kernel)/idleDevices
	return errors.Join(err1, err2)
}

// attachSparse attaches a new sparse file of 1 GiB.
func attachSparse(p *path, file string) (string, error) {
	if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Truncate(file, 1<<30)); err != nil {
		return "", err
	}
	return p.attach(file)
}

// measureServer measures the processes of the only device.
func (m *Memory) measureServer(p *path) error {
	pids, err := p.serverPIDs()
	if err != nil || len(pids) == 0 {
		return fmt.Errorf("%d processes of one device: %w", len(pids), err)
	}
	for _, pid := range pids {
		rollup := fmt.Sprintf("/proc/%d/smaps_rollup", pid)
		rss, err1 := field(rollup, "Rss:")
		pss, err2 := field(rollup, "Pss:")
		if err := errors.Join(err1, err2); err != nil {
			return err
		}
		m.RSS += rss
		m.PSS += pss
	}
	return nil
}

// enterCgroup moves this process into a cgroup, which the servers that it
// starts inherit. It returns a function that undoes this.
func enterCgroup() (leave func() error, err error) {
	// This has no effect if the memory controller is already enabled.
	_ = os.WriteFile(filepath.Dir(cgroup)+"/cgroup.subtree_control", []byte("+memory"), 0)
	if err := os.Mkdir(cgroup, 0o755); err != nil {
		return nil, err
	}
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, err
	}
	_, home, _ := strings.Cut(strings.TrimSpace(string(own)), "::")
	move := func(dir string) error {
		return os.WriteFile(dir+"/cgroup.procs", []byte(strconv.Itoa(os.Getpid())), 0)
	}
	if err := move(cgroup); err != nil {
		return nil, errors.Join(err, os.Remove(cgroup))
	}
	return func() error { return errors.Join(move("/sys/fs/cgroup"+home), os.Remove(cgroup)) }, nil
}

// field returns a number, in bytes, from a file whose lines are a name and a
// number. It converts "kB".
func field(file, name string) (int64, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		rest, found := strings.CutPrefix(line, name)
		if !found {
			continue
		}
		words := strings.Fields(rest)
		n, err := strconv.ParseInt(words[0], 10, 64)
		if len(words) > 1 && words[1] == "kB" {
			n <<= 10
		}
		return n, err
	}
	return 0, fmt.Errorf("%s: no line %q", file, name)
}
