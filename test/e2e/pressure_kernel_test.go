package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// pressureTime is the time for which a test keeps the machine short of memory: 15
// seconds, in a short run 5, or UBLK_LOOP_PRESSURE seconds.
func pressureTime(t testing.TB) time.Duration {
	t.Helper()
	return time.Duration(ublktest.Repeats(t, "UBLK_LOOP_PRESSURE", 5, 15)) * time.Second
}

// pressureGrace is the additional time that a slow machine may need until the kernel has
// killed three eaters of memory.
const pressureGrace = 2 * time.Minute

// hungAfter is the time in seconds for which a task may wait without a break before the
// kernel reports it. On an emulated machine with half of a CPU, the writeback of a
// writer's dirty pages takes 20 seconds.
const hungAfter = "60"

// freeMemory is the memory that the test's hog leaves for everything else. With the
// kernel's own memory it is about what a machine of 256 MiB has.
const freeMemory = 160 << 20

// A writer fills the page cache with dirty pages up to the limit, on a file system on a
// device whose file is on another file system. At the same time other processes eat the
// remaining memory. The writer makes progress, nothing hangs, and the OOM killer does not
// kill the server.
func TestKernelMemoryPressure(t *testing.T) {
	b := kernelBed(t, ublktest.Own, ublktest.Machine, ublktest.ScratchDisk, ublktest.Plain, ublktest.Soak)
	for _, tt := range []struct {
		name  string
		flags []string
		limit string // memory.max of the writer's cgroup
		store bool   // the device writes to a store beside the image
		long  bool   // a short run has all that is in it in other ways
	}{
		{"direct", []string{"--direct-io=on"}, "", false, true},
		{"buffered, copy", []string{"--direct-io=off", "--zero-copy=off", "--depth=16"}, "", false, false},
		{"writer in a cgroup", nil, "24M", false, true},
		{"store, direct", []string{"--direct-io=on"}, "", true, false},
		{"store, buffered, copy", []string{"--direct-io=off", "--zero-copy=off", "--depth=16"}, "", true, true},
	} {
		if tt.long && testing.Short() {
			continue
		}
		t.Run(tt.name, func(t *testing.T) { b.in(t).underPressure(tt.limit, tt.store, tt.flags...) })
	}
	t.Run("one server of many", func(t *testing.T) {
		b := b.in(t)
		b.serve()
		limit := ""
		if testing.Short() {
			limit = "24M" // in place of the test of its own
		}
		b.underPressure(limit, false)
	})
}

func (b *bed) underPressure(limit string, withStore bool, flags ...string) {
	b.Helper()
	below, above := b.TempDir(), b.TempDir()
	b.tool("mkfs.ext4", "-q", "-F", b.testDisk())
	b.tool("mount", b.testDisk(), below)
	defer b.tool("umount", below)
	image := filepath.Join(below, "image")
	b.tool("truncate", "-s", "512M", image)
	if withStore {
		store := filepath.Join(below, "store")
		b.ok("cow", "create", store, "--origin", image, "--size=1G") // list does not warn
		flags = append(flags, "--cow", store)
	}
	s := b.add(append(flags, image)...)
	defer b.del(s.Device)
	b.tool("mkfs.ext4", "-q", "-F", s.Device)
	b.tool("mount", s.Device, above)
	unmount := sync.OnceFunc(func() { b.tool("umount", above) })
	defer unmount()
	b.set("/proc/sys/kernel/hung_task_timeout_secs", hungAfter)
	b.set("/proc/self/oom_score_adj", "-1000")
	defer b.set("/proc/self/oom_score_adj", "0")
	complaints := b.watchKernelLog("blocked for more than", fmt.Sprintf("Killed process %d ", s.PID), "(ublk-loop)")

	defer b.hog()()
	ctx, stop := context.WithTimeout(b.Context(), pressureTime(b)+pressureGrace)
	defer stop()
	var eaters sync.WaitGroup
	var eaten atomic.Int64
	eaters.Go(func() { eat(ctx, &eaten) })
	start := time.Now()
	rounds := b.writeUntil(filepath.Join(above, "file"), limit, func() bool {
		return ctx.Err() != nil || eaten.Load() >= 3 && time.Since(start) >= pressureTime(b)
	})
	stop()
	eaters.Wait()

	b.Logf("%d rounds of writing, %d eaters of memory killed in %v", rounds, eaten.Load(), time.Since(start))
	if rounds == 0 || eaten.Load() == 0 {
		b.Errorf("%d rounds, %d eaters killed: there was no pressure, or nothing went on", rounds, eaten.Load())
	}
	for _, line := range complaints() {
		b.Errorf("the kernel's log has: %s", line)
	}
	if now := b.list(s.Device)[0]; now.State != "live" || now.PID != s.PID {
		b.Errorf("after it: %+v", now)
	}
	unmount()
	b.tool("e2fsck", "-f", "-n", s.Device)
}

// watchKernelLog follows the kernel's log. The returned function stops it, and returns
// the lines that contain one of the texts. The test cannot read the log at its end,
// because new messages overwrite old ones: each kill by the OOM killer logs eight
// kilobytes.
func (b *bed) watchKernelLog(texts ...string) (stop func() []string) {
	b.Helper()
	log, err := os.OpenFile("/dev/kmsg", os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := log.Seek(0, io.SeekEnd); err != nil {
		b.Fatal(err)
	}
	lines := make(chan []string, 1)
	go func() { // until stop closes the log
		var found []string
		record := make([]byte, 8192)
		for {
			n, err := log.Read(record)
			switch {
			case errors.Is(err, unix.EPIPE):
				found = append(found, "(records were overwritten before they were read)")
				continue
			case err != nil:
				lines <- found
				return
			}
			line := string(record[:n])
			if slices.ContainsFunc(texts, func(text string) bool { return strings.Contains(line, text) }) {
				found = append(found, line)
			}
		}
	}()
	return func() []string {
		_ = log.Close()
		return <-lines
	}
}

// set writes a setting of the kernel.
func (b *bed) set(path, value string) {
	b.Helper()
	if err := os.WriteFile(path, []byte(value), 0); err != nil {
		b.Fatal(err)
	}
}

// hog locks all memory except freeMemory, until the returned function is called.
func (b *bed) hog() (release func()) {
	b.Helper()
	available := b.availableMemory()
	if available <= freeMemory {
		b.Fatalf("%d bytes of memory, too few to begin with", available)
	}
	mem, err := unix.Mmap(-1, 0, int(available-freeMemory), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_LOCKED|unix.MAP_POPULATE)
	if err != nil {
		b.Fatal(err)
	}
	return func() {
		if err := unix.Munmap(mem); err != nil {
			b.Error(err)
		}
	}
}

// eat runs processes that allocate memory without end, one after the other, and counts
// those that the kernel kills.
func eat(ctx context.Context, killed *atomic.Int64) {
	for ctx.Err() == nil {
		cmd := exec.CommandContext(ctx, "sh", "-c", "echo 1000 >/proc/self/oom_score_adj; exec busybox tail /dev/zero")
		_ = cmd.Run() // runs until it is killed
		// Without an exit status, a signal has killed it, and the test sends none.
		if ctx.Err() == nil && cmd.ProcessState != nil && cmd.ProcessState.ExitCode() == -1 {
			killed.Add(1)
		}
	}
}

// writeUntil writes a file again and again, and returns how many times the file was
// completely on the device. The writer may be in a cgroup with a memory limit.
func (b *bed) writeUntil(path, limit string, enough func() bool) (rounds int) {
	b.Helper()
	script := `dd if=/dev/zero of="$0" bs=1M count=96 conv=notrunc,fsync 2>&1`
	if limit != "" {
		group := b.memoryGroup(limit)
		script = `echo $$ >` + group + `/cgroup.procs && ` + script
	}
	for !enough() {
		out, err := exec.Command("sh", "-c", script, path).CombinedOutput()
		if err != nil {
			b.Errorf("write: %v\n%s", err, bytes.TrimSpace(out))
			return rounds
		}
		rounds++
	}
	return rounds
}

// memoryGroup makes a cgroup with a memory limit.
func (b *bed) memoryGroup(limit string) string {
	b.Helper()
	group := b.cgroup("memory")
	b.set(filepath.Join(group, "memory.max"), limit)
	return group
}

// cgroup makes a cgroup that a controller controls.
func (b *bed) cgroup(controller string) string {
	b.Helper()
	root := b.TempDir()
	b.tool("mount", "-t", "cgroup2", "none", root)
	b.Cleanup(func() { b.tool("umount", root) })
	b.set(filepath.Join(root, "cgroup.subtree_control"), "+"+controller)
	group := filepath.Join(root, "writer")
	if err := os.Mkdir(group, 0o755); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := os.Remove(group); err != nil {
			b.Error(err)
		}
	})
	return group
}

// availableMemory returns the number of bytes that a process can use without swapping
// (MemAvailable in proc_meminfo(5)).
func (b *bed) availableMemory() uint64 {
	b.Helper()
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		var kib uint64
		if n, _ := fmt.Sscanf(line, "MemAvailable: %d kB", &kib); n == 1 {
			return kib << 10
		}
	}
	b.Fatal("/proc/meminfo does not say what memory is available")
	return 0
}
