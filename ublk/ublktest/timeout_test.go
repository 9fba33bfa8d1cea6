package ublktest

import (
	"testing"
	"time"
)

// A look at a state is followed by a pause that is longer than the look, and short.
func TestPause(t *testing.T) {
	for look, want := range map[time.Duration]time.Duration{
		0: 5 * time.Millisecond, time.Millisecond: 5 * time.Millisecond, 40 * time.Millisecond: 80 * time.Millisecond, time.Minute: 200 * time.Millisecond,
	} {
		if got := pause(look); got != want {
			t.Errorf("after %v: %v, want %v", look, got, want)
		}
	}
}

// Until returns with the first look that finds the state, and makes a last look after the limit.
func TestUntil(t *testing.T) {
	looks := 0
	if r := record(t, func(t testing.TB) { Until(t, time.Minute, "x", func() bool { looks++; return looks == 3 }) }); r.failed || looks != 3 {
		t.Errorf("failed %v after %d looks", r.failed, looks)
	}
	looks = 0
	r := record(t, func(t testing.TB) {
		Until(t, time.Nanosecond, "x", func() bool { looks++; return false }, func() string { return "more" })
	})
	if !r.failed || looks != 1 || len(r.said) < 2 || r.said[0] != DetailPrefix+"more" {
		t.Errorf("failed %v after %d looks, said %q", r.failed, looks, r.said)
	}
}
