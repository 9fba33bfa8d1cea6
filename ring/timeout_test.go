package ring

import (
	"errors"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A wait for more completions than come ends at its time, whatever is there.
func TestWaitForMoreTimesOut(t *testing.T) {
	for name, opts := range allOptions {
		t.Run(name, func(t *testing.T) {
			opts.Entries = 2
			r := newRing(t, opts)
			for want := uint32(1); want <= 2; want++ {
				r.GetSQE().PrepNop()
				start := time.Now()
				watchdog := time.AfterFunc(20*time.Second, func() { panic("a wait of 20 ms does not end") })
				err := r.SubmitAndWaitTimeout(want+1, 20*time.Millisecond)
				watchdog.Stop()
				if !errors.Is(err, unix.ETIME) || time.Since(start) < 20*time.Millisecond {
					t.Fatalf("error %v after %v, want ETIME after 20 ms", err, time.Since(start))
				}
				if n := r.CQReady(); n != want {
					t.Fatalf("%d completions are there, want %d", n, want)
				}
			}
			if err := r.SubmitAndWaitTimeout(2, 0); err != nil {
				t.Errorf("a wait for what is there: %v", err)
			}
		})
	}
}

// The time that is left is told in full, and is never less than none.
func TestWaitTimeoutLeft(t *testing.T) {
	w := newWaitTimeout(90*time.Second + 500*time.Millisecond)
	defer w.unpin()
	w.update()
	if left := time.Duration(w.ts.TvSec)*time.Second + time.Duration(w.ts.TvNsec); left < 80*time.Second || left > 91*time.Second || w.ts.TvNsec >= 1e9 {
		t.Errorf("%d s and %d ns are left of 90.5 s", w.ts.TvSec, w.ts.TvNsec)
	}
	if w.isOver() {
		t.Error("it is over at once")
	}
	if err := newRing(t, Options{}).SubmitAndWaitTimeout(1, -time.Second); !errors.Is(err, unix.ETIME) {
		t.Errorf("a time that has passed: error %v, want ETIME", err)
	}
}

// A wait leaves no memory behind. Memory that stays pinned is never free again.
func TestWaitTimeoutUnpins(t *testing.T) {
	r := newRing(t, Options{})
	const waits = 1000
	before := objects()
	for range waits {
		if err := r.SubmitAndWaitTimeout(1, 0); !errors.Is(err, unix.ETIME) {
			t.Fatalf("error %v, want ETIME", err)
		}
	}
	if after := objects(); after > before+waits/2 {
		t.Errorf("%d objects after %d waits, and %d before", after, waits, before)
	}
}

// objects returns the number of objects in memory that are not garbage.
func objects() uint64 {
	var m runtime.MemStats
	for range 2 { // what has a finalizer is free after the second
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return m.HeapObjects
}
