package ublk_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// where is a target that records which threads serve its queues.
type where struct {
	ublk.Target
	mu      *sync.Mutex
	threads map[int]int // the number of queues that each serves
}

func (w where) NewHandler(q *ublk.Queue) (ublk.Handler, error) {
	w.mu.Lock()
	w.threads[unix.Gettid()]++
	w.mu.Unlock()
	return w.Target.NewHandler(q)
}

// sharing makes devices whose queues share threads.
type sharing struct {
	t       *testing.T
	ctl     *ublk.Control
	threads *ublk.Threads
	where   where
}

func share(t *testing.T, needs ...ublktest.Need) *sharing {
	return &sharing{
		t, ublktest.Kernel(t, needs...), ublk.NewThreads(0, func(err error) { t.Error("a thread failed:", err) }),
		where{nil, &sync.Mutex{}, map[int]int{}},
	}
}

// add returns a device of 1 MiB, started.
func (s *sharing) add(target ublk.Target) *ublk.Device {
	s.t.Helper()
	dev := addDevice(s.t, s.ctl, ublk.Options{Mode: ublk.BufferCopy, Queues: 1, Depth: 8, NoPartScan: true, Threads: s.threads})
	w := s.where
	w.Target = target
	if err := dev.Start(w); err != nil {
		s.t.Fatal(err)
	}
	return dev
}

// serverThreads returns how many threads this process has.
func serverThreads(t *testing.T) int {
	t.Helper()
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	return len(tasks)
}

// Queues of several devices share threads. Each queue gets its own requests while others come and
// go. A thread ends with its last queue.
func TestKernelThreadsServeSeveralDevices(t *testing.T) {
	s := share(t)
	const n = 24
	stop := make(chan struct{})
	var users sync.WaitGroup
	for range n / 2 {
		dev := s.add(make(ramDisk, 1<<20))
		f := openDirect(t, dev.BlockPath())
		page, seed := alignedBytes(t, 4096), byte(dev.Info().ID+1)
		users.Go(func() {
			for i := int64(0); ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				if err := writeAndRead(f, page, seed, i%256*4096); err != nil {
					t.Errorf("%s: %v", dev.BlockPath(), err)
					return
				}
			}
		})
	}
	deadline := time.Now().Add(2 * time.Second)
	for time.Now().Before(deadline) { // others come and go during this
		dev := s.add(make(ramDisk, 1<<20))
		if err := writeAndRead(openDirect(t, dev.BlockPath()), alignedBytes(t, 4096), 0xee, 0); err != nil {
			t.Error(err)
		}
		if err := dev.Close(); err != nil {
			t.Error(err)
		}
	}
	for range n / 2 {
		s.add(make(ramDisk, 1<<20))
	}
	close(stop)
	users.Wait()
	shared := 0
	for _, queues := range s.where.threads {
		shared = max(shared, queues)
	}
	if len(s.where.threads) > n/2 || shared < 4 {
		t.Errorf("more than %d devices, but threads with as many queues as %v", n, s.where.threads)
	}
}

// writeAndRead writes a page and reads it again.
func writeAndRead(f *os.File, page []byte, seed byte, at int64) error {
	want := byte(rand.Uint32())
	for i := range page {
		page[i] = want ^ seed ^ byte(i)
	}
	if _, err := f.WriteAt(page, at); err != nil {
		return err
	}
	written := bytes.Clone(page)
	clear(page)
	if _, err := f.ReadAt(page, at); err != nil {
		return err
	}
	if !bytes.Equal(page, written) {
		return fmt.Errorf("other bytes at %d than were written", at)
	}
	return nil
}

// pinned returns how many pages drivers hold. Each CPU has a count, and adds it to the sum from
// time to time, and at a write to stat_refresh (vmstat_refresh in mm/vmstat.c). A kernel for one
// CPU has only the sum, and no such file.
func pinned(t *testing.T) int {
	t.Helper()
	err := os.WriteFile("/proc/sys/vm/stat_refresh", []byte("1"), 0)
	if err != nil && !(errors.Is(err, os.ErrNotExist) && runtime.NumCPU() == 1) {
		t.Fatal(err)
	}
	counters, err := os.ReadFile("/proc/vmstat")
	if err != nil {
		t.Fatal(err)
	}
	acquired, released, found := 0, 0, 0
	for line := range strings.Lines(string(counters)) {
		n, _ := fmt.Sscanf(line, "nr_foll_pin_acquired %d", &acquired)
		found += n
		n, _ = fmt.Sscanf(line, "nr_foll_pin_released %d", &released)
		found += n
	}
	if found != 2 {
		t.Fatalf("/proc/vmstat has %d of 2 counters of pins", found)
	}
	return acquired - released
}

// The buffers of a queue are freed with the queue, even if its thread stays.
func TestKernelThreadsLetGoOfBuffers(t *testing.T) {
	s := share(t, ublktest.Machine)
	for range 4 {
		s.add(make(ramDisk, 1<<20))
	}
	before := pinned(t)
	var more []*ublk.Device
	for range 3 {
		more = append(more, s.add(make(ramDisk, 1<<20)))
	}
	if pinned(t) <= before {
		t.Fatalf("%d pages are pinned, %d before", pinned(t), before)
	}
	s.add(make(ramDisk, 1<<20)) // keeps their thread
	each := (pinned(t) - before) / 4
	for _, dev := range more {
		if err := dev.Close(); err != nil {
			t.Error(err)
		}
	}
	ublktest.Until(t, 30*time.Second, "the pages of the queues that are gone are free", func() bool { return pinned(t) == before+each },
		func() string { return fmt.Sprintf("%d pages are pinned, %d with one queue less", pinned(t), before) })
}

// Threads end with the last of their queues.
func TestKernelThreadsEnd(t *testing.T) {
	s := share(t)
	for range 2 {
		before := serverThreads(t)
		var devices []*ublk.Device
		for range 12 {
			devices = append(devices, s.add(make(ramDisk, 1<<20)))
		}
		for _, dev := range devices {
			if err := dev.Close(); err != nil {
				t.Error(err)
			}
		}
		// Go has some threads for goroutines that wait in the kernel.
		ublktest.Until(t, 30*time.Second, "the threads have ended", func() bool { return serverThreads(t) <= before+4 },
			func() string { return fmt.Sprintf("%d threads, %d before", serverThreads(t), before) })
	}
}

// A device that cannot be set up or started does not affect its neighbours.
func TestKernelThreadsSurviveAFailedStart(t *testing.T) {
	s := share(t)
	var disks []*os.File
	for range 8 {
		disks = append(disks, openDirect(t, s.add(make(ramDisk, 1<<20)).BlockPath()))
	}
	refused := addDevice(t, s.ctl, ublk.Options{Mode: ublk.BufferCopy, Queues: 1, Depth: 8, NoPartScan: true, Threads: s.threads})
	err := refused.Start(targetFunc(func(*ublk.Queue) (ublk.Handler, error) { return nil, unix.EXFULL }))
	if err == nil {
		t.Error("a handler's error starts a device")
	}
	waitDone(t, refused)
	// This device has fetched its tags, but has no parameters.
	unstarted, err := s.ctl.Add(ublk.Options{Mode: ublk.BufferCopy, Queues: 1, Depth: 8, NoPartScan: true, Threads: s.threads})
	if err != nil {
		t.Fatal(err)
	}
	if err := unstarted.Start(make(ramDisk, 1<<20)); err == nil {
		t.Error("a device without parameters starts")
	}
	if err := unstarted.Close(); err != nil {
		t.Error(err)
	}
	waitDone(t, unstarted)
	for _, f := range disks {
		if err := writeAndRead(f, alignedBytes(t, 4096), 1, 4096); err != nil {
			t.Errorf("%s: %v", f.Name(), err)
		}
	}
}

// A thread that fails reports it, and its devices stay until the process ends.
func TestKernelThreadsFail(t *testing.T) {
	ctl := ublktest.Kernel(t)
	failed := make(chan error, 8)
	threads := ublk.NewThreads(0, func(err error) { failed <- err })
	dev := addDevice(t, ctl, ublk.Options{Mode: ublk.BufferCopy, Queues: 1, NoPartScan: true, Threads: threads})
	if err := dev.Start(flooding(ublk.OpWrite)); err != nil {
		t.Fatal(err)
	}
	f := openDirect(t, dev.BlockPath())
	page := alignedBytes(t, 4096)
	written := make(chan error, 1)
	go func() { _, err := f.WriteAt(page, 0); written <- err }()
	t.Logf("failed: %v", ublktest.Receive(t, 30*time.Second, "the threads' failure", failed))
	waitDone(t, dev) // its only queue has ended
	if err := dev.Close(); err != nil {
		t.Error(err)
	}
	if err := <-written; err == nil {
		t.Error("a write that nobody did has succeeded")
	}
}
