package ring

import (
	"os"
	"runtime"
	"strings"
	"testing"
)

func TestDefaultSize(t *testing.T) {
	if n := newRing(t, Options{}).SQSpace(); n != 8 {
		t.Errorf("a ring with %d entries, want 8", n)
	}
}

// The completion queue has the requested size.
func TestCompletionQueueSize(t *testing.T) {
	for name, opts := range allOptions {
		t.Run(name, func(t *testing.T) {
			opts.CQEntries = 64
			r := newRing(t, opts)
			for range 64 {
				r.GetSQE().PrepNop()
				if err := r.Submit(); err != nil {
					t.Fatal(err)
				}
			}
			if n := r.CQReady(); n != 64 {
				t.Errorf("%d completions of 64", n)
			}
		})
	}
}

// The kernel grants the flags that it supports. SENDMSG_ZC came with the last flag but one (Linux
// 6.1).
func TestFlagsAreGranted(t *testing.T) {
	for name, opts := range allOptions {
		t.Run(name, func(t *testing.T) {
			r := newRing(t, opts)
			p, err := r.NewProbe()
			if err != nil {
				t.Fatal(err)
			}
			if !p.Supports(IORING_OP_SENDMSG_ZC) {
				t.Skip("a kernel before Linux 6.1")
			}
			want := uint32(IORING_SETUP_SUBMIT_ALL)
			if opts.SingleIssuer {
				want |= IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN
			}
			if opts.SQE128 {
				want |= IORING_SETUP_SQE128
			}
			if got := r.Flags() & want; got != want {
				t.Errorf("flags %#x, want %#x among them", r.Flags(), want)
			}
		})
	}
}

// Close frees the thread's index of the ring, of which a thread has 16, and the mappings.
func TestCloseGivesBack(t *testing.T) {
	runtime.LockOSThread()
	before := mappedRings(t)
	for range 40 {
		r := newRing(t, Options{SingleIssuer: true})
		if err := r.RegisterRingFD(); err != nil {
			t.Fatal(err)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if after := mappedRings(t); after != before {
		t.Errorf("%d mappings of rings, %d before", after, before)
	}
}

func mappedRings(t *testing.T) int {
	t.Helper()
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(maps), "[io_uring]")
}
