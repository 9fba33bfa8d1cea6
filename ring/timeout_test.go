package ring

import (
	"errors"
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
