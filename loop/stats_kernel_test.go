package loop

import (
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// opsSince returns the increase of the counters of a device's operations.
func opsSince(dev *Device, before *DeviceStats) map[ublk.Op][3]uint64 {
	ops := map[ublk.Op][3]uint64{}
	now := dev.Stats()
	for op := range now.Ops {
		a, b := &before.Ops[op], &now.Ops[op]
		if n := b.Requests - a.Requests; n > 0 {
			ops[ublk.Op(op)] = [3]uint64{n, b.Bytes - a.Bytes, b.Errors - a.Errors}
		}
	}
	return ops
}

// A repeated operation counts as a retry, and its request counts once.
func TestKernelStatsRetries(t *testing.T) {
	ublktest.Require(t)
	warmUpFUSE(t)
	ctl := ublktest.Kernel(t)
	inEachMode(t, ctl, func(t *testing.T, cfg Config) {
		file, path := mountMoody(t)
		cfg.DirectIO = SwitchOff
		dev := attach(t, ctl, path, cfg)
		disk := openFile(t, dev.Path(), os.O_RDWR|unix.O_DIRECT)
		mem := alignedMemory(t, 64<<10)
		before := dev.Stats()
		file.behave(0, unix.EINTR, 3)
		if _, err := disk.WriteAt(mem, 1<<20); err != nil {
			t.Fatal(err)
		}
		file.behave(0, unix.EIO, 1)
		if _, err := disk.WriteAt(mem, 1<<20); err == nil {
			t.Fatal("a write that fails has succeeded")
		}
		want := [3]uint64{2, 128 << 10, 1}
		if got := opsSince(dev, &before)[ublk.OpWrite]; got != want {
			t.Errorf("writes: requests, bytes, errors: %d, want %d", got, want)
		}
		if n := dev.Stats().Retries - before.Retries; n != 3 {
			t.Errorf("%d retries, want 3", n)
		}
	})
}

// Each request whose pages the driver could not register counts as a fallback, and no
// other request does.
func TestKernelStatsFallbacks(t *testing.T) {
	ctl := ublktest.Kernel(t)
	m := subjectMode(ublk.BufferAutoRegister)
	m.fallback = true // for every second tag
	var even atomic.Int64
	s := attachMode(t, ctl, nullDisk(t, 64, nil), m, func(tgt ublk.Target) ublk.Target { return evenTags{tgt, &even} })
	for i := range int64(20) {
		if _, err := s.disk.WriteAt(s.mem[:4096], i<<12); err != nil {
			t.Fatal(err)
		}
	}
	after := s.dev.Stats()
	if n := int64(after.Fallbacks); n == 0 || n != even.Load() {
		t.Errorf("%d fallbacks, want %d", n, even.Load())
	}
	c := &after.Ops[ublk.OpWrite]
	if c.Requests != 20 || c.Bytes != 20*4096 || c.Errors != 0 {
		t.Errorf("counted %d writes of %d bytes, %d errors; want 20 of %d, 0", c.Requests, c.Bytes, c.Errors, 20*4096)
	}
}

// evenTags is a target that counts the reads and writes of even tags.
type evenTags struct {
	ublk.Target
	n *atomic.Int64
}

func (e evenTags) NewHandler(q *ublk.Queue) (ublk.Handler, error) {
	h, err := e.Target.NewHandler(q)
	if err != nil {
		return nil, err
	}
	completer, ok := h.(ublk.Completer)
	if !ok {
		return nil, fmt.Errorf("a handler without Done: %T", h)
	}
	return evenTagsHandler{completer, e.n}, nil
}

type evenTagsHandler struct {
	ublk.Completer
	n *atomic.Int64
}

func (e evenTagsHandler) Handle(req *ublk.Request) {
	if req.Tag()%2 == 0 && req.Op.HasData() {
		e.n.Add(1)
	}
	e.Completer.Handle(req)
}

// A request that the kernel completes by itself counts as in flight, and so does a flush.
func TestKernelStatsInFlight(t *testing.T) {
	ublktest.Require(t)
	warmUpFUSE(t)
	ctl := ublktest.Kernel(t)
	file, path := mountMoody(t)
	dev := attach(t, ctl, path, Config{DirectIO: SwitchOff})
	gate := make(chan struct{})
	file.setGate(gate)
	disk := openFile(t, dev.Path(), os.O_RDWR|unix.O_DIRECT)
	ended := make(chan error, 1)
	go func() { ended <- disk.Sync() }()
	<-gate // the flush has begun
	if s := dev.Stats(); s.InFlight != 1 || s.InService != 1 {
		t.Errorf("during a flush %d requests are in flight, %d of them served; want 1, 1", s.InFlight, s.InService)
	}
	gate <- struct{}{}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	file.setGate(nil) // the removal may flush
	if s := dev.Stats(); s.InFlight != 0 {
		t.Errorf("after a flush %d requests are in flight", s.InFlight)
	}
	mem := alignedMemory(t, 4096)
	file.mu.Lock() // a read waits for it
	unlock := sync.OnceFunc(file.mu.Unlock)
	t.Cleanup(unlock)
	go func() {
		_, err := disk.ReadAt(mem, 0)
		ended <- err
	}()
	waitUntil(t, "a lone read is in flight", func() bool { return dev.Stats().InFlight == 1 })
	unlock()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// Few of the requests that the kernel completes by itself are timed. The timed ones do
// not prevent the others from being completed in this way, whatever the depth.
func TestKernelStatsSample(t *testing.T) {
	ctl := ublktest.Kernel(t)
	for _, depth := range []int{1, 32} {
		s := attachMode(t, ctl, nullDisk(t, 64, nil), subjectMode(ublk.BufferAutoRegister))
		before := s.dev.Stats()
		var readers sync.WaitGroup
		for range depth {
			mem := alignedMemory(t, 4096)
			readers.Go(func() {
				for i := range 6400 / depth {
					if _, err := s.disk.ReadAt(mem, int64(i%100)<<12); err != nil {
						t.Error(err)
					}
				}
			})
		}
		readers.Wait()
		after := s.dev.Stats()
		reads := &after.Ops[ublk.OpRead]
		timed := reads.Duration.Count() - before.Ops[ublk.OpRead].Duration.Count()
		if n := reads.Requests - before.Ops[ublk.OpRead].Requests; n != 6400 || timed < 50 || timed > 51 {
			t.Errorf("depth %d: %d reads of which %d are timed, want 6400, 50", depth, n, timed)
		}
	}
}
