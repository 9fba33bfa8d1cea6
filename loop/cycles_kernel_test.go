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

// usage is the resources that repeated adds and dels must not use up.
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

// compareUsage checks that usage has not grown. It tolerates the threads and mappings
// that Go's runtime keeps, which are few even after hundreds of cycles.
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

// checkUnreferenced fails the test if anything other than the test's own control device
// refers to the driver.
func checkUnreferenced(t *testing.T) {
	t.Helper()
	if n := moduleUsers(t); n != "0" && n != "1" {
		t.Errorf("%s references to ublk_drv are left", n)
	}
}

// While I/O runs, the device is removed again and again. Its users get errors, and
// nothing hangs.
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

// isGone reports whether an error comes from I/O to a removed disk: a request that was
// running, an open, or a write behind the end, because the removed disk has size 0.
func isGone(err error) bool {
	for _, errno := range []unix.Errno{unix.EIO, unix.ENXIO, unix.ENODEV, unix.ENOENT, unix.ENOSPC} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// writeUntilError writes to a device until a write fails. It sends the result of the
// first write to running.
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

// A program that opens and closes the device all the time, as udev does, does not delay
// the removal.
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

// openAll opens the files that match, reads a page of each, and closes them. It returns
// the number of successful reads.
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
