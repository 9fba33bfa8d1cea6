package loop

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// usage is what add and del must not use up.
type usage struct {
	fds, threads, mappings int
	goHeap                 uint64
	resident               int // KiB
}

func usageNow(t *testing.T) usage {
	t.Helper()
	runtime.GC()
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	return usage{
		fds: countEntries(t, "/proc/self/fd"), threads: countEntries(t, "/proc/self/task"),
		mappings: countLines(t, "/proc/self/maps"), goHeap: mem.HeapAlloc, resident: residentKiB(t),
	}
}

func countEntries(t *testing.T, dir string) int {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func countLines(t *testing.T, path string) int {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(data), "\n")
}

func residentKiB(t *testing.T) int {
	t.Helper()
	data, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(data))[1])
	if err != nil {
		t.Fatal(err)
	}
	return pages * os.Getpagesize() / 1024
}

// compareUsage allows for what Go's runtime keeps from one cycle to the next:
// a few threads and mappings, never something for each of hundreds of cycles.
func compareUsage(t *testing.T, before, after usage) {
	t.Helper()
	if after.fds > before.fds || after.threads > before.threads+4 || after.mappings > before.mappings+40 ||
		after.goHeap > before.goHeap+1<<20 || after.resident > before.resident+16<<10 {
		t.Errorf("grown from %+v to %+v", before, after)
	}
}

// moduleUsers returns the reference count of the driver's module.
func moduleUsers(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile("/sys/module/ublk_drv/refcnt")
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(data))
}

func TestKernelManyCycles(t *testing.T) {
	ctl := ublktest.Kernel(t, ublktest.Plain)
	path := sparseFile(t, mountTmpfs(t))
	file := openPath(t, path)
	cycle := func() {
		dev, err := Attach(ctl, file, Config{})
		if err != nil {
			t.Fatal(err)
		}
		if err := dev.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for range 10 {
		cycle()
	}
	n := ublktest.Repeats(t, "UBLK_LOOP_CYCLES", 100, 1000)
	before, start := usageNow(t), time.Now()
	for range n {
		cycle()
	}
	t.Logf("%d cycles, %v each", n, time.Since(start)/time.Duration(n))
	compareUsage(t, before, usageNow(t))
	checkUnreferenced(t)
}

// checkUnreferenced fails when something still holds the driver but the
// control device that the test has open itself.
func checkUnreferenced(t *testing.T) {
	t.Helper()
	if n := moduleUsers(t); n != "0" && n != "1" {
		t.Errorf("%s references to ublk_drv are left", n)
	}
}

// Cycles with I/O running: whoever has the device open gets errors once it is
// gone, and nobody hangs.
func TestKernelCyclesUnderLoad(t *testing.T) {
	ctl := ublktest.Kernel(t, ublktest.Plain)
	path := sparseFile(t, mountTmpfs(t))
	for range 5 {
		cycleUnderLoad(t, ctl, path)
	}
	before := usageNow(t)
	for range ublktest.Repeats(t, "UBLK_LOOP_CYCLES", 100, 1000) {
		cycleUnderLoad(t, ctl, path)
	}
	compareUsage(t, before, usageNow(t))
	checkUnreferenced(t)
}

func cycleUnderLoad(t *testing.T, ctl *ublk.Control, path string) {
	t.Helper()
	file := openPath(t, path)
	defer file.Close()
	dev, err := Attach(ctl, file, Config{})
	if err != nil {
		t.Fatal(err)
	}
	running, ended := make(chan error, 1), make(chan error, 1)
	go func() { ended <- writeUntilError(dev.Path(), running) }()
	if err := <-running; err != nil {
		t.Errorf("the first write: %v", err)
	}
	if err := dev.Close(); err != nil {
		t.Fatal(err)
	}
	if err := ublktest.Receive(t, 30*time.Second, "the end of I/O", ended); !isGone(err) {
		t.Fatalf("I/O ended with %v", err)
	}
}

// isGone reports whether an error is what I/O gets from a disk that was
// removed: a request that was under way, an open, or a write behind the end of
// what by then is no sector long.
func isGone(err error) bool {
	for _, errno := range []unix.Errno{unix.EIO, unix.ENXIO, unix.ENODEV, unix.ENOENT, unix.ENOSPC} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// writeUntilError writes to a device until that fails, and tells running what
// became of the first write.
func writeUntilError(path string, running chan<- error) error {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_DIRECT, 0)
	if err != nil {
		running <- err
		return err
	}
	defer f.Close()
	mem, err := unix.Mmap(-1, 0, 64<<10, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		running <- err
		return err
	}
	defer func() { _ = unix.Munmap(mem) }()
	for i := int64(0); err == nil; i++ {
		_, err = f.WriteAt(mem, i%16*int64(len(mem)))
		if i == 0 {
			running <- err
		}
	}
	return err
}

// An opener that comes and goes all the time, as udev does, holds nothing up.
func TestKernelOpenersInTheMiddle(t *testing.T) {
	ctl := ublktest.Kernel(t)
	path := sparseFile(t, mountTmpfs(t))
	stop, ended := make(chan struct{}), make(chan struct{})
	var opened atomic.Int64
	go func() {
		defer close(ended)
		for {
			select {
			case <-stop:
				return
			default:
				opened.Add(openAll("/dev/ublkb*"))
			}
		}
	}()
	file := openPath(t, path)
	for range 30 {
		dev, err := Attach(ctl, file, Config{})
		if err != nil {
			t.Fatal(err)
		}
		closed := make(chan error, 1)
		go func() { // as a server does
			<-dev.Done()
			closed <- dev.Close()
		}()
		was := opened.Load()
		waitUntil(t, "an opener", func() bool { return opened.Load() > was })
		if err := Detach(ctl, dev.ID(), DetachOptions{}); err != nil {
			t.Errorf("detach: %v", err)
		}
		if err := <-closed; err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	<-ended
}

// openAll opens what matches, reads a page of each, and closes it. It returns how
// many it has read.
func openAll(pattern string) int64 {
	paths, _ := filepath.Glob(pattern)
	read := int64(0)
	for _, path := range paths {
		f, err := os.Open(path)
		if err != nil {
			continue
		}
		if n, _ := f.Read(make([]byte, 4096)); n > 0 {
			read++
		}
		_ = f.Close()
	}
	return read
}
