package ring

import (
	"errors"
	"testing"
)

// link fills n entries that do nothing. Each but the last is linked to the next.
func link(r *Ring, n int) {
	for i := range n {
		sqe := r.GetSQE()
		sqe.PrepNop()
		if i < n-1 {
			sqe.Flags |= IOSQE_IO_LINK
		}
	}
}

// A link that is submitted as a whole is carried out.
func TestLinkIsWhole(t *testing.T) {
	for name, opts := range allOptions {
		t.Run(name, func(t *testing.T) {
			opts.Entries = 4
			r := newRing(t, opts)
			link(r, 3) // an odd number of entries
			for _, res := range do(t, r, 3) {
				if res != 0 {
					t.Errorf("result %d, want 0", res)
				}
			}
		})
	}
}

// A submit whose last entry is linked to a further entry is an error.
func TestLinkIsCutByTheCaller(t *testing.T) {
	for _, flag := range []uint8{IOSQE_IO_LINK, IOSQE_IO_HARDLINK} {
		r := newRing(t, Options{})
		sqe := r.GetSQE()
		sqe.PrepNop()
		sqe.Flags |= flag
		if err := r.Submit(); !errors.Is(err, ErrLinkCut) {
			t.Errorf("flag %#x: error %v, want ErrLinkCut", flag, err)
		}
		if n := r.CQReady(); n != 0 {
			t.Errorf("flag %#x: %d entries were carried out", flag, n)
		}
	}
}

// A submit is an error if the kernel takes only the first part of a link, as it does without
// memory.
func TestLinkIsCutByTheKernel(t *testing.T) {
	for name, opts := range allOptions {
		t.Run(name, func(t *testing.T) {
			opts.Entries = 4
			for seen := range uint32(2) {
				r := newRing(t, opts)
				link(r, 3)
				r.sq.sqeHead = r.sq.sqeTail
				r.sq.kTail.Store(1 + seen) // the kernel sees only this many
				if err := enters(t, "a submit", r.Submit); !errors.Is(err, ErrLinkCut) {
					t.Errorf("after %d of 3 entries: error %v, want ErrLinkCut", 1+seen, err)
				}
			}
		})
	}
}

// HasSpace counts exactly the entries that the kernel has not taken.
func TestHasSpace(t *testing.T) {
	r := newRing(t, Options{Entries: 4})
	for round := range 3 {
		for filled := range uint32(5) {
			for n := range uint32(6) {
				if got, want := r.HasSpace(n), filled+n <= 4; got != want {
					t.Errorf("round %d: space for %d beside %d of 4: %v", round, n, filled, got)
				}
			}
			if sqe := r.GetSQE(); (sqe != nil) != (filled < 4) {
				t.Errorf("round %d: entry %d of 4: %v", round, filled, sqe)
			} else if sqe != nil {
				sqe.PrepNop()
			}
		}
		do(t, r, 4)
	}
}
