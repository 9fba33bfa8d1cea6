package ublk

import (
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// shortRing has one more completion after each time that it is entered, and for
// all that comes back at once.
type shortRing struct {
	entered, most uint32
}

func (r *shortRing) SubmitAndWait(uint32) error {
	r.entered++
	return nil
}

func (r *shortRing) SubmitAndWaitTimeout(n uint32, _ time.Duration) error { return r.SubmitAndWait(n) }

func (r *shortRing) CQReady() uint32 { return min(r.entered, r.most) }

// Completions are read when they are there, not when the ring says so.
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
