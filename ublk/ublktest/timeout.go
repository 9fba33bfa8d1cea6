package ublktest

import (
	"fmt"
	"testing"
	"time"
)

// These are the prefixes of the lines of TimedOut and Detail.
const (
	TimedOutPrefix = "timed out after "
	DetailPrefix   = "detail: "
)

// TimedOut fails a test that has waited in vain. The runner repeats a test if this is its
// only failure, because a machine that shares its CPUs stands still for seconds now and
// then.
func TimedOut(t testing.TB, after time.Duration, format string, args ...any) {
	t.Helper()
	what := fmt.Sprintf(format, args...)
	if !t.Failed() { // otherwise it is not the only failure
		t.Attr(AttrTimedOut, fmt.Sprintf("%q", what))
	}
	t.Fatalf("%s%v: waiting for %s", TimedOutPrefix, after, what)
}

// Detail logs a line that explains a time-out. Any other line after the time-out counts
// as a further failure.
func Detail(t testing.TB, format string, args ...any) {
	t.Helper()
	t.Logf(DetailPrefix+format, args...)
}

// Until waits for a state that causes no event, and fails the test if the state does not
// come within a time. The functions more return additional text for that failure. A look at the state that takes long, such
// as one by a program, happens less often: it must not use up the CPU that the awaited change needs.
func Until(t testing.TB, limit time.Duration, what string, ok func() bool, more ...func() string) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for {
		began := time.Now()
		if ok() {
			return
		}
		if time.Now().After(deadline) {
			break
		}
		time.Sleep(pause(time.Since(began)))
	}
	for _, text := range more {
		Detail(t, "%s", text())
	}
	TimedOut(t, limit, "%s", what)
}

// pause returns the time until the next look at a state, of which the last one took some time.
func pause(look time.Duration) time.Duration {
	return min(max(2*look, 5*time.Millisecond), 200*time.Millisecond)
}

// Receive waits for a value, and fails the test if none comes within a time. A closed
// channel gives the zero value.
func Receive[T any](t testing.TB, limit time.Duration, what string, from <-chan T) T {
	t.Helper()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case v := <-from:
		return v
	case <-timer.C:
		TimedOut(t, limit, "%s", what)
		panic("not reached")
	}
}
