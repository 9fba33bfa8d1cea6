package e2e

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// Tests that kill or interrupt something at a random moment can come too late:
// then the test has shown nothing. They try on until enough of them came in time.
// kills returns how often such a test tries at least, how many of the tries have
// to come in time, and after how many it gives up.
func kills(t testing.TB) (times, least, most int) {
	t.Helper()
	times = ublktest.Kills(t, 8, 16)
	return times, times / 2, 8 * times
}

// untilHit calls try with 0, 1, 2, … until it has been called times times and
// has reported at least least times that it came in time. It fails the test if
// that takes more than most tries, or if none of the first 2 × times came in time.
func untilHit(t testing.TB, what string, times, least, most int, try func(i int) (hit bool)) {
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

// moment returns a random time for try number i within what something takes. What
// is to be hit may be a small part of that, at its start: of five tries in a row
// each takes half of the time of the one before.
func moment(whole time.Duration, i int) time.Duration { return rand.N(whole>>(i%5) + 1) }
