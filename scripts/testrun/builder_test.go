package main

import (
	"regexp"
	"testing"
)

// A test that is skipped on every bed fails a whole run. A run that has no long tests therefore
// must not even start them.
func TestSkipsLongTests(t *testing.T) {
	for _, c := range []struct {
		tier tier
		run  string
		long bool
	}{
		{unit, "", true},
		{quick, "", true},
		{full, "", false},
		{unit, "TestLongDebianLinks", false},
	} {
		skip := regexp.MustCompile((&builder{tier: c.tier, run: c.run}).skip())
		for name, want := range map[string]bool{
			"TestLongDebianLinks": c.long, "TestKernelLimits": true, "TestCrashKill": true, "TestFork": false, "TestTestLong": false,
		} {
			if got := skip.MatchString(name); got != want {
				t.Errorf("tier %s, run %q: %s is left out: %v, want %v", c.tier, c.run, name, got, want)
			}
		}
	}
}
