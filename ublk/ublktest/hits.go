package ublktest

import (
	"math/rand/v2"
	"testing"
	"time"
)

// UntilHit repeats a test that kills or interrupts an operation at a random moment, and
// that proves nothing if the moment comes too late. It calls try with 0, 1, 2, … until it
// has made times calls and at least least of them reported a hit. It fails the test after
// most calls, or if none of the first 2 × times calls reported a hit. A test of the kernel must have declared
// the need Soak, and gets times from Kills. Otherwise the tier soak could not raise it.
func UntilHit(t testing.TB, what string, times, least, most int, try func(i int) (hit bool)) {
	t.Helper()
	if least < 1 {
		t.Fatalf("%s: at least %d hits prove nothing", what, least)
	}
	if isKernelTest(t) && !declares(t, Soak) {
		t.Fatalf("%s repeats something, and does not declare the need %s", t.Name(), Soak)
	}
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

// Moment returns a random time within the whole duration of an operation, for try number
// i. The part that a test wants to hit may be short and at the start. Therefore each of
// seven tries in a row has half of the range of the one before, which also finds the part if
// the duration was measured at a busy time.
func Moment(whole time.Duration, i int) time.Duration { return rand.N(whole>>(i%7) + 1) }
