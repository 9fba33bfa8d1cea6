package ublk

import (
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// shortRing returns from each enter with one more completion, however many it should wait for.
type shortRing struct {
	entered, most uint32
}

func (r *shortRing) SubmitAndWait(uint32) error {
	r.entered++
	return nil
}

func (r *shortRing) SubmitAndWaitTimeout(n uint32, _ time.Duration) error { return r.SubmitAndWait(n) }

func (r *shortRing) CQReady() uint32 { return min(r.entered, r.most) }

// Completions are read when all of them are ready, even if the ring returns earlier.
func TestWaitReady(t *testing.T) {
	for _, timeout := range []time.Duration{0, time.Hour} {
		r := &shortRing{most: 2}
		if err := waitReady(r, 2, timeout); err != nil || r.CQReady() != 2 {
			t.Errorf("timeout %v: %d are there, error %v", timeout, r.CQReady(), err)
		}
	}
	r := &shortRing{most: 1}
	if err := waitReady(r, 2, time.Millisecond); !errors.Is(err, unix.ETIME) {
		t.Errorf("of one that never comes: error %v, want ETIME", err)
	}
}
