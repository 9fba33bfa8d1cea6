package ublk_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// asyncDisk is a RAM disk that completes each request after some time, from a goroutine of
// its own.
type asyncDisk struct {
	mu   sync.Mutex // protects data
	data []byte
}

func (d *asyncDisk) handle(req *ublk.Request) { go d.serve(req.Async()) }

func (d *asyncDisk) serve(r ublk.AsyncRequest) {
	time.Sleep(time.Duration(rand.IntN(int(time.Millisecond)))) // a slow network
	d.mu.Lock()
	defer d.mu.Unlock()
	switch r.Op {
	case ublk.OpRead:
		copy(r.Data(), d.data[r.Offset():])
	case ublk.OpWrite:
		copy(d.data[r.Offset():], r.Data())
	}
	r.Complete(nil)
}

// Requests that goroutines complete in any order transfer the right bytes.
func TestKernelAsync(t *testing.T) {
	ctl := ublktest.Kernel(t)
	dev := addDevice(t, ctl, ublk.Options{})
	disk := &asyncDisk{data: make([]byte, 1<<20)}
	if err := dev.Start(ublk.HandlerFunc(disk.handle)); err != nil {
		t.Fatal(err)
	}
	f := openDirect(t, dev.BlockPath())
	errs := make(chan error)
	const writers, each = 16, 64 << 10
	for w := range writers {
		mem := alignedBytes(t, 8192)
		go func() { errs <- rewrite(f, mem, int64(w)*each, each) }()
	}
	for range writers {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}

// rewrite writes the pages of a part of a disk and reads each back, in several rounds.
func rewrite(f *os.File, mem []byte, start, length int64) error {
	wrote, read := mem[:4096], mem[4096:]
	for round := range byte(4) {
		for off := start; off < start+length; off += 4096 {
			for i := range wrote {
				wrote[i] = byte(off>>12) + round + byte(i)
			}
			if _, err := f.WriteAt(wrote, off); err != nil {
				return err
			}
			if _, err := f.ReadAt(read, off); err != nil {
				return err
			}
			if !bytes.Equal(wrote, read) {
				return fmt.Errorf("round %d: other bytes at %d than were written", round, off)
			}
		}
	}
	return nil
}

// holding is a handler that gives each read to the test and completes the rest.
type holding chan ublk.AsyncRequest

func (h holding) handle(req *ublk.Request) {
	if req.Op == ublk.OpRead {
		h <- req.Async()
		return
	}
	req.Complete(nil)
}

// startHolding starts a device with a read in flight, and returns a channel for its error.
func startHolding(t *testing.T, ctl *ublk.Control) (dev *ublk.Device, held ublk.AsyncRequest, read <-chan error) {
	t.Helper()
	dev = addDevice(t, ctl, ublk.Options{Queues: 1, NoPartScan: true})
	h := make(holding, 64)
	if err := dev.Start(ublk.HandlerFunc(h.handle)); err != nil {
		t.Fatal(err)
	}
	f := openDirect(t, dev.BlockPath())
	mem := alignedBytes(t, 4096)
	ended := make(chan error, 1)
	go func() {
		_, err := f.ReadAt(mem, 0)
		_ = f.Close()
		if err == nil && mem[4095] != 7 {
			err = errors.New("the read has other bytes")
		}
		ended <- err
	}()
	return dev, <-h, ended
}

// The stop of a device waits for the requests that goroutines have.
func TestKernelAsyncStopWaits(t *testing.T) {
	dev, held, read := startHolding(t, ublktest.Kernel(t))
	closed := make(chan error, 1)
	go func() { closed <- dev.Close() }()
	select {
	case err := <-closed:
		t.Fatalf("closed with a request that is not complete: %v", err)
	case <-dev.Done():
		t.Fatal("ended with a request that is not complete")
	case <-time.After(200 * time.Millisecond):
	}
	for i := range held.Data() {
		held.Data()[i] = 7
	}
	if !held.Complete(nil) {
		t.Error("the request does not take its result")
	}
	if err := <-read; err != nil {
		t.Errorf("read: %v", err)
	}
	if err := <-closed; err != nil {
		t.Errorf("close: %v", err)
	}
	if held.Complete(nil) {
		t.Error("the request takes a second result, from a device that is closed")
	}
}

// Leave ends a device whose goroutine never completes a request. The reader gets an error, and
// a later write of the goroutine to the buffer does no harm.
func TestKernelAsyncNever(t *testing.T) {
	ctl := ublktest.Kernel(t)
	dev, held, read := startHolding(t, ctl)
	if err := dev.Leave(); err != nil {
		t.Fatal(err)
	}
	if err := ctl.Delete(dev.Info().ID); err != nil && !errors.Is(err, ublk.ErrLingers) {
		t.Fatal(err)
	}
	if err := <-read; !errors.Is(err, unix.EIO) && !errors.Is(err, io.EOF) {
		t.Errorf("read: error %v, want EIO", err)
	}
	held.Data()[4095] = 7
	if held.Complete(nil) {
		t.Error("a device that was left takes a result")
	}
}
