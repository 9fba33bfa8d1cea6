package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// A limit of a cgroup (io.max) on the device bounds what its processes write to the device. A
// limit on the disk below does not, because the server writes there.
func TestKernelIOMax(t *testing.T) {
	b := kernelBed(t, ublktest.ScratchDisk, ublktest.Waits)
	disk := b.testDisk()
	below := strings.TrimSpace(b.tool("lsblk", "--nodeps", "--noheadings", "--output", "MAJ:MIN", disk))
	s := b.add("--direct-io=on", disk)
	group := b.cgroup("io")
	const mib = 3
	write := func() time.Duration {
		t.Helper()
		script := `echo $$ >"$0" && dd if=/dev/zero of="$1" oflag=direct bs=64K count="$2" 2>&1`
		start := time.Now()
		out, err := exec.Command("sh", "-c", script, filepath.Join(group, "cgroup.procs"), s.Device, strconv.Itoa(16*mib)).CombinedOutput()
		if err != nil {
			t.Fatalf("write: %v\n%s", err, out)
		}
		return time.Since(start)
	}
	charged := func(number string) bool {
		t.Helper()
		stat, err := os.ReadFile(filepath.Join(group, "io.stat"))
		if err != nil {
			t.Fatal(err)
		}
		return strings.Contains("\n"+string(stat), "\n"+number+" rbytes=")
	}
	b.set(filepath.Join(group, "io.max"), below+" wbps=1024")
	if took := write(); took > time.Minute { // with the limit: 50 minutes
		t.Errorf("%d MiB took %v", mib, took)
	}
	if charged(below) || !charged(s.MajMin) {
		t.Errorf("the disk below is charged to the cgroup: %v; the device: %v", charged(below), charged(s.MajMin))
	}
	b.set(filepath.Join(group, "io.max"), s.MajMin+" wbps=1048576")
	if took := write(); took < (mib-1)*time.Second {
		t.Errorf("%d MiB took %v with 1 MiB/s", mib, took)
	}
	b.del(s.Device)
}
