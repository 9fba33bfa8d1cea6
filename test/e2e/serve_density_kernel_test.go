package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/loop"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// deviceKiB is the maximum user memory in KiB of each further device with 2 queues and
// depth 32.
const deviceKiB = 64

// Many devices in one server cost little memory each and no threads of their own.
// Attaching another one stays as quick as the first. The server is idle when its devices
// are. All devices share one disk.
func TestKernelServeDensity(t *testing.T) {
	b := kernelBed(t, ublktest.Plain, ublktest.Soak, ublktest.Waits)
	n := ublktest.Repeats(t, "UBLK_LOOP_DEVICES", 120, 300)
	m := b.serve()
	c := client.New(client.DefaultSocket)
	file, err := loop.OpenPath(b.loopDisk("", b.image(16<<20)))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	add := func(devices int) (costs []float64) { // of ten attaches each, because the kernel counts in ticks
		start, unit := m.cpuTime(), callTime()
		for i := range devices {
			addKept(t, c, file)
			if i%10 == 9 {
				cpu, unitBefore := m.cpuTime()-start, unit
				start, unit = m.cpuTime(), callTime()
				costs = append(costs, 2*10_000*float64(cpu)/float64(unitBefore+unit))
			}
		}
		slices.Sort(costs)
		return costs
	}
	add(10)
	threads, files := m.threads(), m.files()
	// Ten attaches take only a few ticks of each process, so the least figure is a matter of luck. But a shared
	// machine has slow moments, and the last figures must not fail because of these.
	first := add(n / 3)
	early := first[len(first)/2]
	m.isIdle()
	before, kernel := m.memory(), kernelMemory(t)
	add(n / 3)
	late := slices.Min(add(n / 3))
	m.isIdle()
	t.Logf("%d devices: ten attaches take the CPU time of %.0f system calls among the first third, of %.0f among the last", n, early, late)
	if late > 2*early {
		t.Error("an attach takes longer the more devices there are")
	}
	each := (m.memory() - before) / (2 * n / 3)
	t.Logf("%d KiB in all, %d KiB, %.2f threads and %.1f open files a device, %d KiB of the kernel's", m.memory(), each,
		float64(m.threads()-threads)/float64(n), float64(m.files()-files)/float64(n), (kernelMemory(t)-kernel)/(2*n/3))
	copies := b.list("0")[0].BufferMode == "copy"
	ublktest.CheckAbility(t, ublktest.ZeroCopy, !copies)
	if copies {
		t.Logf("without zero copy its buffers are the most of it")
	} else if each > deviceKiB {
		t.Errorf("a device takes %d KiB, more than %d", each, deviceKiB)
	}
	// Queues share threads, unless the threads copy. Go keeps a few more threads for
	// goroutines that return from the kernel.
	if now := m.threads(); !copies && now > threads+n/4+64 {
		t.Errorf("%d threads more for %d devices", now-threads, n)
	}
	b.ok("del", "--all")
}

// addKept adds a small device of a file, which stays until it is removed.
func addKept(t *testing.T, c *client.Client, file *os.File) {
	t.Helper()
	lease, err := c.Add(context.Background(),
		client.AddRequest{File: file.Name(), Config: client.Config{ReadOnly: true, Queues: 2, Depth: 32, MaxIOBytes: 16 << 10}}, client.Files{File: file})
	if err != nil {
		t.Fatal(err)
	}
	if err := lease.Keep(context.Background(), 0); err != nil {
		t.Fatal(err)
	}
	lease.Close()
}

// callTime returns how long 10,000 system calls take now. What a guest counts as CPU time
// includes the time that its host gives to other programs, here as well as in the server.
func callTime() time.Duration {
	start := time.Now()
	for range 10_000 {
		_ = unix.Getppid()
	}
	return time.Since(start)
}

// processes returns the server, and the process that serves its requests, if that is another one.
func (m *many) processes() []int { return m.b.processes(client.Device{PID: m.pid()}) }

// memory returns the PSS of the server's processes, in KiB.
func (m *many) memory() int {
	m.b.Helper()
	return m.b.memory(client.Device{PID: m.pid()})["Pss:"]
}

// kernelMemory returns the kernel's memory in slabs, stacks and page tables, in KiB. That
// includes all devices, and anything else that changes meanwhile.
func kernelMemory(t *testing.T) int {
	t.Helper()
	data, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		t.Fatal(err)
	}
	total, found := 0, 0
	for line := range strings.Lines(string(data)) {
		var kib int
		if fields := strings.Fields(line); slices.Contains([]string{"SUnreclaim:", "KernelStack:", "PageTables:"}, fields[0]) {
			if kib, err = strconv.Atoi(fields[1]); err != nil {
				t.Fatal(err)
			}
			found++
		}
		total += kib
	}
	if found != 3 {
		t.Fatalf("/proc/meminfo has %d of 3 kinds of the kernel's memory", found)
	}
	return total
}

// threads returns the number of threads of the server's processes.
func (m *many) threads() (n int) {
	m.b.Helper()
	for _, pid := range m.processes() {
		tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
		if err != nil {
			m.b.Fatal(err)
		}
		n += len(tasks)
	}
	return n
}

// files returns the number of open files of the server's processes.
func (m *many) files() (n int) {
	m.b.Helper()
	for _, pid := range m.processes() {
		n += m.b.openFiles(pid, "")
	}
	return n
}

// cpuTime returns the CPU time of the server's processes, from the clocks that
// clock_getcpuclockid(3) would return.
func (m *many) cpuTime() (total time.Duration) {
	m.b.Helper()
	const schedClock = 2 // CPUCLOCK_SCHED in linux/posix-timers_types.h
	for _, pid := range m.processes() {
		var ts unix.Timespec
		if err := unix.ClockGettime(int32(^pid<<3|schedClock), &ts); err != nil {
			m.b.Fatal(err)
		}
		total += time.Duration(ts.Nano())
	}
	return total
}

// isIdle waits until the server has finished its work, and checks that it then does
// nothing. It counts context switches, which every wakeup and every waiting system call
// cause.
func (m *many) isIdle() {
	m.b.Helper()
	was := m.switches()
	for quiet, start := 0, time.Now(); quiet < 3; {
		if time.Since(start) > time.Minute {
			ublktest.TimedOut(m.b, time.Minute, "three seconds in which the server is idle")
		}
		time.Sleep(time.Second)
		now := m.switches()
		quiet++
		if now != was {
			quiet = 0
		}
		was = now
	}
}

// switches returns the number of context switches of the threads of the server's processes.
func (m *many) switches() int {
	m.b.Helper()
	total := 0
	var paths []string
	for _, pid := range m.processes() {
		list, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
		if err != nil {
			m.b.Fatal(err)
		}
		paths = append(paths, list...)
	}
	for _, path := range paths {
		data, _ := os.ReadFile(path) // nothing if the thread has ended
		for line := range strings.Lines(string(data)) {
			if _, count, found := strings.Cut(line, "voluntary_ctxt_switches:"); found {
				n, err := strconv.Atoi(strings.TrimSpace(count))
				if err != nil {
					m.b.Fatal(err)
				}
				total += n
			}
		}
	}
	if total == 0 {
		m.b.Fatalf("%d threads have no context switch", len(paths))
	}
	return total
}
