package main

import (
	"fmt"
	"strings"
	"testing"
)

// idlePSS is the most memory that an idle device may take, in KiB.
const idlePSS = 6 << 10

// A server with zero copy has no buffers, and is small.
func TestKernelIdleMemory(t *testing.T) {
	b := kernelBed(t)
	s := b.add("--queues=2", "--depth=128", b.image(64<<20))
	defer b.del(s.Device)
	if s.BufferMode == "copy" {
		t.Skip("this kernel has no zero copy")
	}
	rollup := map[string]int{}
	for line := range strings.Lines(b.proc(s, "smaps_rollup")) {
		var name string
		var kib int
		if n, _ := fmt.Sscan(line, &name, &kib); n == 2 {
			rollup[name] = kib
		}
	}
	if rollup["Locked:"] == 0 {
		t.Error("nothing is locked")
	}
	t.Logf("%d KiB, %d of them in huge pages", rollup["Pss:"], rollup["AnonHugePages:"])
	if pss := rollup["Pss:"]; pss == 0 || pss > idlePSS {
		t.Errorf("it takes %d KiB, more than %d", pss, idlePSS)
	}
}
