package ublk_test

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/uapi"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// targetFunc makes a Target of a function.
type targetFunc func(*ublk.Queue) (ublk.Handler, error)

func (f targetFunc) NewHandler(q *ublk.Queue) (ublk.Handler, error) { return f(q) }

// addDevice adds a device of 1 MiB that is closed at the end of the test.
func addDevice(t testing.TB, ctl *ublk.Control, opts ublk.Options) *ublk.Device {
	t.Helper()
	dev, err := ctl.Add(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := dev.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	if err := dev.SetParams(ublk.Params{Size: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	return dev
}

func waitDone(t testing.TB, dev *ublk.Device) {
	t.Helper()
	ublktest.Receive(t, 30*time.Second, "the end of the device", dev.Done())
}

func TestKernelStartFailsWithAHandler(t *testing.T) {
	ctl := ublktest.Kernel(t, ublktest.CPUs)
	for failing := range 2 { // a device has a queue for each CPU
		t.Run(fmt.Sprintf("queue %d", failing), func(t *testing.T) {
			dev := addDevice(t, ctl, ublk.Options{})
			err := dev.Start(targetFunc(func(q *ublk.Queue) (ublk.Handler, error) {
				if q.ID() == failing {
					return nil, unix.EXFULL
				}
				return make(ramDisk, 1<<20), nil
			}))
			if !errors.Is(err, unix.EXFULL) {
				t.Fatalf("start: error %v, want EXFULL", err)
			}
			waitDone(t, dev)
			if _, err := os.Stat(dev.BlockPath()); !errors.Is(err, os.ErrNotExist) {
				t.Fatalf("%s: %v", dev.BlockPath(), err)
			}
		})
	}
}

// A device of a zero-copy mode does not start with a handler that cannot reach a request's
// bytes.
func TestKernelZeroCopyNeedsACompleter(t *testing.T) {
	ctl := ublktest.Kernel(t)
	dev := addDevice(t, ctl, ublk.Options{Mode: ublk.BufferFastest})
	err := dev.Start(make(ramDisk, 1<<20))
	if zeroCopy := dev.Mode().ZeroCopy(); zeroCopy != errors.Is(err, ublk.ErrNeedsCopy) || !zeroCopy && err != nil {
		t.Fatalf("start in mode %v: error %v", dev.Mode(), err)
	}
}

func TestKernelStopByAnotherEndsTheServer(t *testing.T) {
	ctl := ublktest.Kernel(t, ublktest.EveryKernel)
	dev := startRAMDisk(t, ctl, ublk.Options{}, make(ramDisk, 1<<20))
	other, err := ublk.OpenControl()
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := other.Stop(dev.Info().ID); err != nil {
		t.Fatal(err)
	}
	waitDone(t, dev)
	if err := dev.Err(); err != nil {
		t.Fatalf("an orderly end has error %v", err)
	}
}

func TestKernelTryStopSparesAnOpenDevice(t *testing.T) {
	ctl := ublktest.Kernel(t, ublktest.EveryKernel)
	dev := startRAMDisk(t, ctl, ublk.Options{}, make(ramDisk, 1<<20))
	f := openDirect(t, dev.BlockPath())
	err := ctl.TryStop(dev.Info().ID)
	features, ferr := ctl.Features()
	if ferr != nil {
		t.Fatal(ferr)
	}
	if !features.Has(uapi.UBLK_F_SAFE_STOP_DEV) {
		if !errors.Is(err, ublk.ErrNotSupported) {
			t.Fatalf("error %v, want ErrNotSupported", err)
		}
		return
	}
	if !errors.Is(err, unix.EBUSY) {
		t.Fatalf("open device: error %v, want EBUSY", err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := ctl.TryStop(dev.Info().ID); err != nil {
		t.Fatal(err)
	}
	waitDone(t, dev)
}

func TestKernelCloseWithTheDeviceOpen(t *testing.T) {
	ctl := ublktest.Kernel(t)
	dev := startRAMDisk(t, ctl, ublk.Options{}, make(ramDisk, 1<<20))
	f := openDirect(t, dev.BlockPath())
	if err := dev.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := f.ReadAt(alignedBytes(t, 4096), 0); err == nil {
		t.Fatal("a device that is gone was read")
	}
}

// flood is a handler that breaks its queue at the first request of a kind. It makes more
// completions than the completion queue holds.
type flood struct {
	q  *ublk.Queue
	op ublk.Op
}

func (f flood) Handle(req *ublk.Request) {
	if req.Op != f.op {
		req.Complete(nil)
		return
	}
	for range 64 * f.q.Depth() {
		req.SQE().PrepNop()
	}
}

func (f flood) Done(*ublk.Request, int32) {}

func flooding(op ublk.Op) ublk.Target {
	return targetFunc(func(q *ublk.Queue) (ublk.Handler, error) { return flood{q, op}, nil })
}

// A queue that breaks while the kernel starts the device, at the first read of the partition
// scan, ends the device, and the scan ends too. START_DEV itself fails only if the scan is part
// of it (up to 6.18).
func TestKernelQueueBreaksInStart(t *testing.T) {
	ctl := ublktest.Kernel(t)
	dev := addDevice(t, ctl, ublk.Options{Mode: ublk.BufferCopy})
	started := make(chan error, 1)
	go func() { started <- dev.Start(flooding(ublk.OpRead)) }()
	waitDone(t, dev)
	if err := dev.Err(); err == nil || errors.Is(err, ublk.ErrKilled) {
		t.Errorf("the device ended with %v, want the queue's error", err)
	}
	t.Logf("Start: error %v", ublktest.Receive(t, 30*time.Second, "the end of Start", started))
	if err := dev.Close(); err != nil {
		t.Error(err)
	}
}

// A queue that breaks while the kernel stops the device, at the first write of dirty pages, ends
// the device. The stop does not hang.
func TestKernelQueueBreaksInStop(t *testing.T) {
	ctl := ublktest.Kernel(t)
	dev := addDevice(t, ctl, ublk.Options{Mode: ublk.BufferCopy, NoPartScan: true})
	if err := dev.Start(flooding(ublk.OpWrite)); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(dev.BlockPath(), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }() // stays open, because the last close would write the pages
	if _, err := f.Write(make([]byte, 64<<10)); err != nil {
		t.Fatal(err)
	}
	stopped := make(chan error, 1)
	go func() { stopped <- dev.Stop() }()
	waitDone(t, dev)
	if err := dev.Err(); err == nil || errors.Is(err, ublk.ErrKilled) {
		t.Errorf("the device ended with %v, want the queue's error", err)
	}
	t.Logf("Stop: error %v", ublktest.Receive(t, 30*time.Second, "the end of Stop", stopped))
	if err := dev.Close(); err != nil {
		t.Error(err)
	}
}

// The error of one queue ends the device, and the requests that the queue had fail.
func TestKernelFailingQueueEndsTheDevice(t *testing.T) {
	ctl := ublktest.Kernel(t, ublktest.EveryKernel)
	dev := addDevice(t, ctl, ublk.Options{Mode: ublk.BufferCopy})
	if err := dev.Start(flooding(ublk.OpWrite)); err != nil {
		t.Fatal(err)
	}
	f := openDirect(t, dev.BlockPath())
	written := make(chan error, 1)
	go func() {
		_, err := f.WriteAt(alignedBytes(t, 4096), 0)
		written <- err
	}()
	waitDone(t, dev)
	if err := dev.Err(); err == nil || errors.Is(err, ublk.ErrKilled) {
		t.Fatalf("the device ended with %v, want the queue's error", err)
	}
	if err := dev.Close(); err != nil {
		t.Fatal(err)
	}
	if err := ublktest.Receive(t, 30*time.Second, "the end of the write", written); !errors.Is(err, unix.EIO) {
		t.Fatalf("write: error %v, want EIO", err)
	}
}

func TestKernelEachQueueHasItsThreadAndItsCPUs(t *testing.T) {
	ctl := ublktest.Kernel(t, ublktest.CPUs, ublktest.EveryKernel)
	var mu sync.Mutex
	threads := map[int]int{}
	cpus := map[int]unix.CPUSet{}
	dev := addDevice(t, ctl, ublk.Options{Mode: ublk.BufferCopy})
	err := dev.Start(targetFunc(func(q *ublk.Queue) (ublk.Handler, error) {
		mu.Lock()
		defer mu.Unlock()
		threads[unix.Gettid()] = q.ID()
		var set unix.CPUSet
		err := unix.SchedGetaffinity(0, &set)
		cpus[q.ID()] = set
		return make(ramDisk, 1<<20), err
	}))
	if err != nil {
		t.Fatal(err)
	}
	if n := runtime.NumCPU(); len(threads) != n || int(dev.Info().Queues) != n {
		t.Fatalf("%d threads serve %d queues on %d CPUs", len(threads), dev.Info().Queues, n)
	}
	for id, set := range cpus {
		data, err := os.ReadFile(fmt.Sprintf("/sys/block/ublkb%d/mq/%d/cpu_list", dev.Info().ID, id))
		if err != nil {
			t.Fatal(err)
		}
		var want unix.CPUSet
		for _, cpu := range strings.Split(strings.TrimSpace(string(data)), ",") {
			var n int
			if _, err := fmt.Sscan(cpu, &n); err != nil {
				t.Fatal(err)
			}
			want.Set(n)
		}
		if set != want {
			t.Errorf("queue %d runs on %d CPUs, the driver maps %q to it", id, set.Count(), data)
		}
	}
}

func TestKernelQueueLoopAllocatesNothing(t *testing.T) {
	ctl := ublktest.Kernel(t, ublktest.Plain)
	dev := startRAMDisk(t, ctl, ublk.Options{Queues: 1}, make(ramDisk, 1<<20))
	f := openDirect(t, dev.BlockPath())
	fd, buf := int(f.Fd()), alignedBytes(t, 4096)
	const requests = 2000
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for i := range requests {
		if _, err := unix.Pread(fd, buf, int64(i%256)*4096); err != nil {
			t.Fatal(err)
		}
		if _, err := unix.Pwrite(fd, buf, int64(i%256)*4096); err != nil {
			t.Fatal(err)
		}
	}
	runtime.ReadMemStats(&after)
	// The runtime allocates for itself now and then. One allocation for a hundred requests
	// would come from the queue.
	if n := after.Mallocs - before.Mallocs; n > 2*requests/100 {
		t.Fatalf("%d allocations for %d requests", n, 2*requests)
	}
}

// The kernel has the memory for every entry that a queue can have in flight before the device
// starts. The fetches use one entry of each tag.
func TestKernelQueueReservesItsEntries(t *testing.T) {
	ctl := ublktest.Kernel(t, ublktest.EveryKernel)
	const depth = 4096
	before := ringRequests(t)
	startRAMDisk(t, ctl, ublk.Options{Queues: 1, Depth: depth, MaxIOBytes: uint32(os.Getpagesize()), NoPartScan: true}, make(ramDisk, 1<<20))
	// The kernel may free requests of an earlier ring during the test.
	if grown := ringRequests(t) - before; grown < depth*3/2 {
		t.Errorf("the kernel holds %d requests for a queue of %d tags, want some %d", grown, depth, 2*depth)
	}
}

// ringRequests returns how many requests of io_uring the kernel has allocated.
func ringRequests(t *testing.T) int {
	t.Helper()
	slabs, err := os.ReadFile("/proc/slabinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(slabs)) {
		if fields := strings.Fields(line); fields[0] == "io_kiocb" {
			var active int
			if _, err := fmt.Sscan(fields[1], &active); err != nil {
				t.Fatal(err)
			}
			return active
		}
	}
	t.Fatal("/proc/slabinfo has no io_kiocb")
	return 0
}
