package ublk_test

import (
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
	if req.StartSector != 0 {
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
