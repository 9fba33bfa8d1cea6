package loop

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// ioCount is the number of requests that a disk has completed
// (Documentation/block/stat.rst).
type ioCount struct {
	reads, readSectors, writes, writeSectors uint64
}

func countIO(t testing.TB, disk string) ioCount {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("/sys/block", filepath.Base(disk), "stat"))
	if err != nil {
		t.Fatal(err)
	}
	var c ioCount
	var merges, ticks uint64
	if _, err := fmt.Sscan(string(data), &c.reads, &merges, &c.readSectors, &ticks,
		&c.writes, &merges, &c.writeSectors); err != nil {
		t.Fatalf("parse %q: %v", data, err)
	}
	return c
}

func (c ioCount) minus(d ioCount) ioCount {
	return ioCount{c.reads - d.reads, c.readSectors - d.readSectors, c.writes - d.writes, c.writeSectors - d.writeSectors}
}

// Each request goes to the backing disk once and whole, from one page to the largest
// request: both disks have the same number of operations and of bytes. Merging is
// switched off on both disks, so that each operation is a request.
func TestKernelDispatchesEachRequestOnceAndWhole(t *testing.T) {
	ctl := ublktest.Kernel(t, ublktest.EveryKernel)
	for _, zeroCopy := range []Switch{SwitchOn, SwitchOff} {
		t.Run("zero copy "+string(zeroCopy), func(t *testing.T) {
			if zeroCopy == SwitchOn {
				needMode(t, ctl, ublk.BufferRegister)
			}
			disk := nullDisk(t, 64, map[string]string{"max_sectors": "1024"})
			dev := attach(t, ctl, disk, Config{DirectIO: SwitchOn, ZeroCopy: zeroCopy})
			noMerges(t, disk)
			noMerges(t, dev.Path())
			f := openFile(t, dev.Path(), os.O_RDWR|unix.O_DIRECT)
			mem := alignedMemory(t, 1<<20)
			largest := int(dev.Status().Limits.MaxIOBytes)
			for n := 4096; n <= largest; n *= 2 {
				countRequests(t, f, disk, dev.Path(), mem[:n])
			}
		})
	}
}

// countRequests makes ten writes and ten reads of a size, and compares the counters of
// both disks.
func countRequests(t *testing.T, f *os.File, backing, device string, mem []byte) {
	t.Helper()
	const n = 10
	inBefore, outBefore := countIO(t, device), countIO(t, backing)
	for i := range n {
		if _, err := f.WriteAt(mem, int64(i*len(mem))); err != nil {
			t.Fatal(err)
		}
		if _, err := f.ReadAt(mem, int64(i*len(mem))); err != nil {
			t.Fatal(err)
		}
	}
	sectors := uint64(n * len(mem) / 512)
	want := ioCount{n, sectors, n, sectors}
	var in, out ioCount
	// The kernel counts a request after it has woken the waiting process
	// (__blk_mq_end_request in block/blk-mq.c). A surplus request does not vanish.
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		in, out = countIO(t, device).minus(inBefore), countIO(t, backing).minus(outBefore)
		if in == want && out == want || time.Now().After(deadline) {
			break
		}
	}
	if in != want || out != want {
		t.Errorf("%d requests of %d bytes each way: device %+v, backing %+v, want %+v", n, len(mem), in, out, want)
	}
}

// flushes returns the number of flushes that a disk has completed.
func flushes(t *testing.T, disk string) int {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("/sys/block", filepath.Base(disk), "stat"))
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(strings.Fields(string(data))[15])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// A FUA write reaches the file as a synchronous write. A write with RWF_DSYNC to the
// device is a FUA write followed by a flush (block/fops.c), which causes two flushes of
// the disk below. A write and a flush cause one.
func TestKernelFUAIsSynchronous(t *testing.T) {
	ctl := ublktest.Kernel(t, ublktest.EveryKernel)
	inEachMode(t, ctl, func(t *testing.T, cfg Config) {
		disk := nullDisk(t, 64, map[string]string{"cache_size": "8"})
		cfg.DirectIO = SwitchOff
		dev := attach(t, ctl, disk, cfg)
		f := openFile(t, dev.Path(), os.O_RDWR|unix.O_DIRECT)
		mem := alignedMemory(t, 4096)
		// The kernel counts the flushes after the write has returned, so that the test
		// waits until it finds as many as expected. A surplus flush does not vanish.
		write := func(flags, want int) int {
			before := flushes(t, disk)
			if _, err := unix.Pwritev2(int(f.Fd()), [][]byte{mem}, 0, flags); err != nil {
				t.Fatal(err)
			}
			if flags == 0 {
				if err := f.Sync(); err != nil {
					t.Fatal(err)
				}
			}
			n := 0
			for deadline := time.Now().Add(20 * time.Second); n < want && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
				n = flushes(t, disk) - before
			}
			return n
		}
		if plain, fua := write(0, 1), write(unix.RWF_DSYNC, 2); plain != 1 || fua != 2 {
			t.Errorf("%d flushes for a write and a flush, want 1; %d for a FUA write and a flush, want 2", plain, fua)
		}
	})
}

func noMerges(t *testing.T, disk string) {
	t.Helper()
	path := filepath.Join("/sys/block", filepath.Base(disk), "queue/nomerges")
	if err := os.WriteFile(path, []byte("2"), 0); err != nil {
		t.Fatal(err)
	}
}

// attach attaches a path for a test. A transfer gets the tests' key.
func attach(t testing.TB, ctl *ublk.Control, path string, cfg Config) *Device {
	t.Helper()
	if !cfg.Transfer.isNone() {
		cfg.Key = secretOf(t, testKey)
	}
	file := openPath(t, path)
	dev, err := Attach(ctl, file, cfg)
	if err != nil {
		t.Fatal(err)
	}
	_ = file.Close() // the device has its own descriptor
	t.Cleanup(func() {
		if err := dev.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return dev
}

// No operation makes the server allocate memory.
func TestKernelRequestsAllocateNothing(t *testing.T) {
	ctl := ublktest.Kernel(t, ublktest.Plain)
	inEachMode(t, ctl, func(t *testing.T, cfg Config) {
		cfg.Queues = 1
		dev := attach(t, ctl, sparseFile(t, fileSystem(t, "ext4")), cfg)
		f := openFile(t, dev.Path(), os.O_RDWR|unix.O_DIRECT)
		fd, mem := int(f.Fd()), alignedMemory(t, 4096)
		zero := func(off int64) error { return unix.Fallocate(fd, punchHole, off, 4096) }
		if !cfg.Transfer.isNone() {
			zero = func(int64) error { return nil } // a transfer has no write-zeroes
		}
		const rounds = 500
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for i := range rounds {
			off := int64(i%256) * 4096
			_, werr := unix.Pwrite(fd, mem, off)
			_, rerr := unix.Pread(fd, mem, off)
			if err := cmp.Or(werr, rerr, unix.Fdatasync(fd), blockIoctl(f, unix.BLKDISCARD, uint64(off), 4096), zero(off)); err != nil {
				t.Fatal(err)
			}
		}
		runtime.ReadMemStats(&after)
		// Go's runtime allocates for itself now and then.
		if n := after.Mallocs - before.Mallocs; n > 5*rounds/100 {
			t.Fatalf("%d allocations for %d requests", n, 5*rounds)
		}
	})
}
