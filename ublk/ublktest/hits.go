package ublktest

import (
	"math/rand/v2"
	"testing"
	"time"
)

// UntilHit is for tests that kill or interrupt something at a random moment, and
// have shown nothing if that came too late. It calls try with 0, 1, 2, … until it
// has been called times times and has reported at least least times that it came
// in time. It fails the test if that takes more than most tries, or if none of the
// first 2 × times came in time.
func UntilHit(t testing.TB, what string, times, least, most int, try func(i int) (hit bool)) {
	t.Helper()
	hits := 0
	for i := 0; i < times || hits < least; i++ {
		if i >= most || hits == 0 && i >= 2*times {
			t.Fatalf("%s: %d of %d tries came in time, want %d", what, hits, i, least)
		}
		if try(i) {
			hits++
		}
	}
	t.Logf("%s: %d tries came in time, at least %d had to", what, hits, least)
}

// Moment returns a random time for try number i within what something takes. What
// is to be hit may be a small part of that, at its start: of five tries in a row
// each takes half of the time of the one before.
func Moment(whole time.Duration, i int) time.Duration { return rand.N(whole>>(i%5) + 1) }
