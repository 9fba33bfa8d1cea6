package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// idlePSS is the maximum memory of an idle device, of both of its processes, in KiB. A single process that did the same had
// 5.9 MiB. Two processes may have 1.3 times as much.
const idlePSS = 6041 * 13 / 10

// A server with zero copy has no buffers and takes little memory, for a file and for a table.
func TestKernelIdleMemory(t *testing.T) {
	b := kernelBed(t, ublktest.Plain)
	s := b.add("--queues=2", "--depth=128", b.image(64<<20))
	b.lacksZeroCopy(s)
	b.idlesWithin(s, idlePSS)
	s = b.addTable(fmt.Sprintf("0 131072 linear %s 0", b.image(64<<20)), "--queues=2", "--depth=128")
	b.idlesWithin(s, idlePSS)
}

// servePSS is the same for serve with one device. A single process had 12.7 MiB, because serve keeps all of the program
// resident.
const servePSS = 13005 * 13 / 10

// The two processes of a server of many devices, too, take little more memory than one.
func TestKernelServeIdleMemory(t *testing.T) {
	b := kernelBed(t, ublktest.Plain)
	m := b.serve()
	defer m.stop()
	if !b.isApart(m.pid()) {
		return // with this driver the server serves all devices itself
	}
	s := b.add("--queues=2", "--depth=128", b.image(64<<20))
	b.lacksZeroCopy(s)
	b.idlesWithin(s, servePSS)
}

// lacksZeroCopy ends the test if a device has buffers, because the kernel has no zero copy.
func (b *bed) lacksZeroCopy(s client.Device) {
	b.Helper()
	if s.BufferMode == "copy" {
		b.del(s.Device)
		ublktest.Lacks(b.TB, ublktest.ZeroCopy)
	}
}

// idlesWithin checks that both processes of a device have at most some memory, in KiB, and removes the
// device.
func (b *bed) idlesWithin(s client.Device, limit int) {
	b.Helper()
	defer b.del(s.Device)
	var rollup map[string]int
	defer func() {
		if b.Failed() {
			b.Logf("the processes have %v", rollup)
		}
	}()
	// When add returns, the processes have not yet freed the memory of their start. They do that twice within seconds.
	waitUntil(b, fmt.Sprintf("at most %d KiB", limit), func() bool {
		rollup = b.memory(s)
		return rollup["Pss:"] <= limit
	})
	b.Logf("%s: %d KiB, %d of them in huge pages", s.Device, rollup["Pss:"], rollup["AnonHugePages:"])
	if rollup["Pss:"] == 0 || rollup["Locked:"] == 0 {
		b.Errorf("none of it is locked: %v", rollup)
	}
	if len(b.processes(s)) != 2 {
		b.Error("the server serves the requests itself")
	}
}

// memory returns the sums over the mappings of a device's processes, in KiB.
func (b *bed) memory(s client.Device) map[string]int {
	b.Helper()
	return b.memoryOf(b.processes(s)...)
}

// memoryOf returns the sums over the mappings of processes, in KiB (proc_pid_smaps(5)).
func (b *bed) memoryOf(pids ...int) map[string]int {
	b.Helper()
	sums := map[string]int{}
	for _, pid := range pids {
		for line := range strings.Lines(b.readFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))) {
			var name string
			var kib int
			if n, _ := fmt.Sscan(line, &name, &kib); n == 2 {
				sums[name] += kib
			}
		}
	}
	if sums["Pss:"] == 0 {
		b.Fatalf("processes %v have no memory: %v", pids, sums)
	}
	return sums
}
