package ublktest

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// A test that waits for a moment fails if the moment never came, or came less often than the test
// needs.
func TestUntilHit(t *testing.T) {
	for _, c := range []struct {
		name               string
		times, least, most int
		hits               []int // the calls that report one
		calls              int
		failed             bool
	}{
		{"each call", 3, 2, 9, []int{0, 1, 2}, 3, false},
		{"enough", 4, 2, 9, []int{1, 3}, 4, false},
		{"enough, but later", 2, 2, 9, []int{3, 8}, 9, false},
		{"one too few", 2, 2, 9, []int{3}, 9, true},
		{"none", 3, 1, 90, nil, 6, true},
		{"none, but few calls", 3, 1, 5, nil, 5, true},
		{"none is wanted", 3, 0, 9, []int{0}, 0, true},
	} {
		calls := 0
		r := record(t, func(t testing.TB) {
			UntilHit(t, "hit", c.times, c.least, c.most, func(i int) bool {
				if i != calls {
					t.Errorf("call %d has number %d", calls, i)
				}
				calls++
				return slices.Contains(c.hits, i)
			})
		})
		if r.failed != c.failed || calls != c.calls {
			t.Errorf("%s: failed %v after %d calls, want %v after %d; it said %q", c.name, r.failed, calls, c.failed, c.calls, r.said)
		}
	}
}

// The tier soak has each test of the kernel that waits for a moment.
func TestUntilHitNeedsSoak(t *testing.T) {
	hit := func(int) bool { return true }
	for _, name := range []string{"TestKernelX", "TestCrashX/requeue", "TestUnit"} {
		for _, needs := range [][]Need{{Once}, {Once, Soak}} {
			r := recordAs(name, t, func(t testing.TB) {
				keepDeclared(t, needs)
				UntilHit(t, "hit", 1, 1, 1, hit)
			})
			if want := name != "TestUnit" && len(needs) == 1; r.failed != want {
				t.Errorf("%s with the needs %v: failed %v; it said %q", name, needs, r.failed, r.said)
			}
			delete(declared.needs, strings.Split(name, "/")[0])
		}
	}
}

// Moments are within an operation, and some are close to its start.
func TestMoment(t *testing.T) {
	const whole = time.Second
	early := 0
	for i := range 700 {
		m := Moment(whole, i)
		if m < 0 || m > whole {
			t.Errorf("moment %v of %v", m, whole)
		}
		if m <= whole/64 {
			early++
		}
	}
	if early < 100 { // each seventh is
		t.Errorf("%d of 700 moments are in the first part of 64", early)
	}
}
