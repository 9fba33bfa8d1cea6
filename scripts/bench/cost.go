package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// usage is the CPU time used so far.
type usage struct {
	all    time.Duration // by all processes and the kernel
	server time.Duration // by a path's server
}

// userHz is the unit of /proc/stat: USER_HZ, the same on every Linux that Go
// runs on.
const userHz = 100

func usageOf(pids []int) (usage, error) {
	var u usage
	data, err := os.ReadFile("/proc/stat")
	if err != nil {
		return u, err
	}
	var user, nice, system, idle, iowait, irq, softirq int64
	if _, err := fmt.Sscanf(string(data), "cpu %d %d %d %d %d %d %d", &user, &nice, &system, &idle, &iowait, &irq, &softirq); err != nil {
		return u, fmt.Errorf("parse /proc/stat: %w", err)
	}
	u.all = time.Duration(user+nice+system+irq+softirq) * time.Second / userHz
	for _, pid := range pids {
		tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
		if err != nil {
			return u, err
		}
		for _, task := range tasks {
			var ns int64
			data, err := os.ReadFile(task)
			if errors.Is(err, os.ErrNotExist) {
				continue // a kernel worker that has ended
			}
			if _, err := fmt.Sscan(string(data), &ns); err != nil {
				return u, fmt.Errorf("parse %s: %w", task, err)
			}
			u.server += time.Duration(ns)
		}
	}
	return u, nil
}

// enterCounter counts the io_uring_enter calls of processes with a tracepoint.
type enterCounter struct {
	fds []int
}

func countEnters(pids []int) (*enterCounter, error) {
	id, err := tracepoint("syscalls/sys_enter_io_uring_enter")
	if err != nil {
		return nil, err
	}
	c := &enterCounter{}
	for _, pid := range pids {
		tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
		if err != nil {
			return nil, errors.Join(err, c.close())
		}
		for _, task := range tasks {
			var tid int
			if _, err := fmt.Sscan(filepath.Base(task), &tid); err != nil {
				return nil, errors.Join(err, c.close())
			}
			attr := unix.PerfEventAttr{Type: unix.PERF_TYPE_TRACEPOINT, Config: id}
			attr.Size = uint32(unsafe.Sizeof(attr))
			fd, err := unix.PerfEventOpen(&attr, tid, -1, -1, unix.PERF_FLAG_FD_CLOEXEC)
			if err != nil {
				return nil, errors.Join(fmt.Errorf("count enters of %d: %w", tid, err), c.close())
			}
			c.fds = append(c.fds, fd)
		}
	}
	return c, nil
}

// tracepoint returns the id of a tracepoint.
func tracepoint(name string) (uint64, error) {
	data, err := os.ReadFile("/sys/kernel/tracing/events/" + name + "/id")
	if err != nil {
		return 0, err
	}
	var id uint64
	_, err = fmt.Sscan(strings.TrimSpace(string(data)), &id)
	return id, err
}

func (c *enterCounter) count() (uint64, error) {
	var sum uint64
	for _, fd := range c.fds {
		var value [8]byte
		if _, err := unix.Read(fd, value[:]); err != nil {
			return 0, fmt.Errorf("read a counter: %w", err)
		}
		sum += binary.NativeEndian.Uint64(value[:])
	}
	return sum, nil
}

func (c *enterCounter) close() error {
	var err error
	for _, fd := range c.fds {
		err = errors.Join(err, unix.Close(fd))
	}
	return err
}
