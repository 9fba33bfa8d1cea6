package ublktest

import (
	"fmt"
	"testing"
	"time"
)

// How the lines of TimedOut and Detail begin.
const (
	TimedOutPrefix = "timed out after "
	DetailPrefix   = "detail: "
)

// TimedOut fails a test that has waited in vain for what is described. The runner
// tries a test again if this is its only failure: a machine that shares its CPUs
// stands still for seconds now and then.
func TimedOut(t testing.TB, after time.Duration, format string, args ...any) {
	t.Helper()
	what := fmt.Sprintf(format, args...)
	if !t.Failed() { // else it is not the only failure
		t.Attr(AttrTimedOut, fmt.Sprintf("%q", what))
	}
	t.Fatalf("%s%v: waiting for %s", TimedOutPrefix, after, what)
}

// Detail logs what explains a time-out that has failed the test. Any other line
// behind it counts as a further failure.
func Detail(t testing.TB, format string, args ...any) {
	t.Helper()
	t.Logf(DetailPrefix+format, args...)
}

// Until waits for a state that gives no event, and fails the test if it does not
// come within a time. More functions say what to print in that case.
func Until(t testing.TB, limit time.Duration, what string, ok func() bool, more ...func() string) {
	t.Helper()
	for deadline := time.Now().Add(limit); !ok(); time.Sleep(5 * time.Millisecond) {
		if !time.Now().After(deadline) {
			continue
		}
		for _, text := range more {
			Detail(t, "%s", text())
		}
		TimedOut(t, limit, "%s", what)
	}
}

// Receive waits for a value, and fails the test if none comes within a time. A
// channel that is closed gives the zero value.
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
