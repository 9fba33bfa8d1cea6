package ublk_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// pipeTarget reads the block at sector 0 from a pipe, and answers all other
// requests at once.
type pipeTarget struct {
	pipe *os.File
}

func (t pipeTarget) NewHandler(q *ublk.Queue) (ublk.Handler, error) {
	file, err := q.RegisterFile(int(t.pipe.Fd()))
	return &pipeHandler{file}, err
}

type pipeHandler struct{ file ublk.File }

func (h *pipeHandler) Handle(req *ublk.Request) {
	if req.StartSector != 0 || !req.Op.HasData() {
		req.Complete(nil)
		return
	}
	req.ForwardAndComplete(h.file, 0)
}

// waitInFlight waits until a device has a read in flight.
func waitInFlight(t *testing.T, dev *ublk.Device) {
	t.Helper()
	path := fmt.Sprintf("/sys/block/ublkb%d/inflight", dev.Info().ID)
	ublktest.Until(t, 30*time.Second, "a read is under way", func() bool {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Fields(string(data))[0] == "1"
	})
}

// A request whose operation outlasts many others is completed once, with the bytes that it
// read, although the ring's entries have been used many times during it.
func TestKernelSlowRequestAmongMany(t *testing.T) {
	ctl := ublktest.Kernel(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = r.Close(), w.Close() }()
	dev, err := ctl.Add(ublk.Options{Queues: 1, Depth: 4, Mode: ublk.BufferCopy, NoPartScan: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = dev.Close() }()
	if err := dev.SetParams(ublk.Params{Size: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	if err := dev.Start(pipeTarget{r}); err != nil {
		t.Fatal(err)
	}
	disk := openDirect(t, dev.BlockPath())
	mem, err := unix.Mmap(-1, 0, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Munmap(mem) }()
	for round := range byte(3) {
		slow := make(chan error, 1)
		go func() {
			_, err := disk.ReadAt(mem[:4096], 0)
			slow <- err
		}()
		waitInFlight(t, dev)
		for i := range int64(100) {
			if _, err := disk.ReadAt(mem[4096:], 4096*(1+i)); err != nil {
				t.Fatalf("round %d: read %d beside it: %v", round, i, err)
			}
		}
		data := make([]byte, 4096)
		for i := range data {
			data[i] = round + 1
		}
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
		if err := <-slow; err != nil || mem[0] != round+1 || mem[4095] != round+1 {
			t.Fatalf("round %d: read %d and %d, error %v", round, mem[0], mem[4095], err)
		}
	}
	select {
	case <-dev.Done():
		t.Errorf("the device has ended: %v", dev.Err())
	default:
	}
}

// holdBeside makes a device whose only read waits for a pipe, and calls test with it during the
// read. It first calls prepare.
func holdBeside(t *testing.T, prepare func(dev *ublk.Device), test func(dev *ublk.Device, disk *os.File)) {
	t.Helper()
	ctl := ublktest.Kernel(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = r.Close(), w.Close() }()
	dev, err := ctl.Add(ublk.Options{Queues: 1, Depth: 4, Mode: ublk.BufferCopy, NoPartScan: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = dev.Close() }()
	if err := dev.SetParams(ublk.Params{Size: 1 << 20, VolatileCache: true}); err != nil {
		t.Fatal(err)
	}
	if err := dev.Start(pipeTarget{r}); err != nil {
		t.Fatal(err)
	}
	prepare(dev)
	disk := openDirect(t, dev.BlockPath())
	mem, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Munmap(mem) }()
	slow := make(chan error, 1)
	go func() {
		_, err := disk.ReadAt(mem, 0)
		slow <- err
	}()
	defer func() {
		if _, err := w.Write(make([]byte, 4096)); err != nil {
			t.Error(err)
		}
		if err := <-slow; err != nil {
			t.Errorf("the read: %v", err)
		}
	}()
	ublktest.Until(t, 30*time.Second, "the read is under way", func() bool {
		stats := dev.Stats() // which has a read that the kernel completes by itself from its start
		return stats.InService+int(stats.Ops[ublk.OpRead].Requests) == 1
	})
	test(dev, disk)
}

// A hold waits for a read that the kernel completes by itself, although it keeps a flush, which
// the kernel does not count as a request in flight.
func TestKernelHoldBesideFlush(t *testing.T) {
	holdBeside(t, func(*ublk.Device) {}, func(dev *ublk.Device, disk *os.File) {
		held := make(chan error, 1)
		go func() {
			resume, err := dev.Hold(500 * time.Millisecond)
			if err == nil {
				resume()
			}
			held <- err
		}()
		for {
			select {
			case err := <-held:
				if !errors.Is(err, unix.ETIMEDOUT) {
					t.Errorf("a hold beside a read without a result: %v, want ETIMEDOUT", err)
				}
				return
			default: // the hold keeps one of these until it ends
				if err := disk.Sync(); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}

// If the kernel does not count requests, a hold cannot know whether the kernel has completed them.
func TestKernelHoldUncounted(t *testing.T) {
	uncount := func(dev *ublk.Device) {
		iostats := fmt.Sprintf("/sys/block/ublkb%d/queue/iostats", dev.Info().ID)
		if err := os.WriteFile(iostats, []byte("0"), 0); err != nil {
			t.Fatal(err)
		}
	}
	holdBeside(t, uncount, func(dev *ublk.Device, _ *os.File) {
		want := errors.ErrUnsupported
		if dev.Stats().InService > 0 {
			want = unix.ETIMEDOUT // before Linux 6.15 the queue completes it
		}
		if _, err := dev.Hold(500 * time.Millisecond); !errors.Is(err, want) {
			t.Errorf("a hold without a number of requests: %v, want %v", err, want)
		}
	})
}
