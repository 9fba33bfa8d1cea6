package ublk_test

import (
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// The requests of a handler that answers at once are counted and timed.
func TestKernelQueueStats(t *testing.T) {
	ctl := ublktest.Kernel(t)
	dev := addDevice(t, ctl, ublk.Options{Mode: ublk.BufferCopy, NoPartScan: true})
	if err := dev.Start(ublk.HandlerFunc(slowZeroes)); err != nil {
		t.Fatal(err)
	}
	f := openDirect(t, dev.BlockPath())
	mem := alignedBytes(t, 8192)
	before := dev.Stats()
	for range 10 {
		if _, err := f.ReadAt(mem[:4096], 0); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := f.WriteAt(mem, 0); err == nil {
		t.Fatal("a write that fails has succeeded")
	}
	after := dev.Stats()
	reads, writes := after.Ops[ublk.OpRead], after.Ops[ublk.OpWrite]
	was := before.Ops[ublk.OpRead]
	timed, took := reads.Duration.Count()-was.Duration.Count(), reads.Duration.Sum-was.Duration.Sum
	if reads.Requests-was.Requests != 10 || reads.Bytes-was.Bytes != 40960 || reads.Errors != 0 || timed != 10 || took < 10*time.Millisecond {
		t.Errorf("reads went from %+v to %+v, want 10 of 4096 bytes and a millisecond", was, reads)
	}
	if writes.Requests != 1 || writes.Bytes != 8192 || writes.Errors != 1 {
		t.Errorf("writes are %+v, want one of 8192 bytes that failed", writes)
	}
	if err := dev.Close(); err != nil {
		t.Fatal(err)
	}
	if s := dev.Stats(); s.InService != 0 || s.Ops[ublk.OpRead].Requests < reads.Requests {
		t.Errorf("at the end stats are %+v", s)
	}
}

// slowZeroes takes a millisecond for a read, and refuses writes.
func slowZeroes(req *ublk.Request) {
	if req.Op == ublk.OpWrite {
		req.Complete(unix.EIO)
		return
	}
	for start := time.Now(); time.Since(start) < time.Millisecond; {
		runtime.Gosched()
	}
	clear(req.Data())
	req.Complete(nil)
}
