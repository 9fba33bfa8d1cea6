package main

import (
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// A test that is skipped on every bed fails a whole run. A run that has no long tests therefore
// must not even start them. All but the tier unit have the tests that start a machine.
func TestSkips(t *testing.T) {
	for _, c := range []struct {
		tier        tier
		run         string
		long, guest bool
	}{
		{unit, "", true, true},
		{quick, "", true, false},
		{full, "", false, false},
		{unit, "TestLongDebianLinks", false, false},
	} {
		skip := regexp.MustCompile((&builder{tier: c.tier, run: c.run}).skip())
		for name, want := range map[string]bool{
			"TestLongDebianLinks": c.long, "TestGuestIsApart": c.guest, "TestKernelLimits": true, "TestCrashKill": true, "TestFork": false, "TestGuest": false, "TestTestLong": false,
		} {
			if got := skip.MatchString(name); got != want {
				t.Errorf("tier %s, run %q: %s is left out: %v, want %v", c.tier, c.run, name, got, want)
			}
		}
	}
}

// Tests on this machine have the time limit of all other processes, and not that of go test. On a
// new machine some wait for a kernel that is being built.
func TestLimitOfTests(t *testing.T) {
	cmd, err := (&builder{limit: 20 * time.Minute}).here(".", nil).command(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if args := strings.Join(cmd.Args, " "); !strings.Contains(args, " -timeout 1200s ") {
		t.Error(args)
	}
}

// The tests of a module that is not the main one run although nothing in it has changed: they also
// read documents.
func TestNoStaleResultOfAModule(t *testing.T) {
	for module, want := range map[string]bool{".": false, "cmd/ublk-loop-csi": true} {
		cmd, err := (&builder{tier: unit}).here(module, nil).command(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if got := slices.Contains(cmd.Args, "-count=1"); got != want {
			t.Errorf("%s: %q", module, cmd.Args)
		}
	}
}

// Programs with the race detector end soon, here and in machines.
func TestRacingProgramsEndSoon(t *testing.T) {
	for _, c := range []struct {
		b    *bed
		want bool
	}{{newBed(umlKernel), false}, {newBed(umlKernel).withRace(), true}} {
		k := &kernelJob{builder: &builder{supplies: &supplies{}}, bed: c.b}
		if got := slices.Contains(k.settings(), raceSettings); got != c.want {
			t.Errorf("%s: %q", c.b.name, k.settings())
		}
	}
	cmd, err := (&builder{}).here(".", nil).command(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if slices.Contains(cmd.Args, "-race") != slices.Contains(cmd.Env, raceSettings) {
		t.Errorf("%q: %q", cmd.Args, cmd.Env)
	}
}
