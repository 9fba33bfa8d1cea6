package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// write writes a file and returns its path.
func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// testBeds returns the beds of the matrix and the host's own.
func testBeds() []*bed {
	beds := []*bed{newBed(umlKernel), newBed(umlKernel).withRace(), newBed("7.3"), newBed("6.18"), newBed("6.12"), newBed("host")}
	beds[len(beds)-1].has = needsOf(ublktest.Machine, ublktest.CPUs, ublktest.Plain)
	return beds
}

// bedsOf returns the names of the beds on which the plan has a test.
func (p plan) bedsOf(name string) string {
	var names []string
	for _, pl := range p.placements {
		if pl.name == name {
			names = append(names, pl.bed.name)
		}
	}
	return strings.Join(names, " ")
}

func TestPlan(t *testing.T) {
	p := &pkg{Dir: "loop"}
	tests := []declared{
		{p, "Plain", needs{}},
		{p, "EveryKernel", needsOf(ublktest.EveryKernel)},
		{p, "OldestKernel", needsOf(ublktest.OldestKernel)},
		{p, "CPUs", needsOf(ublktest.CPUs)},
		{p, "CPUsEveryKernel", needsOf(ublktest.CPUs, ublktest.EveryKernel)},
		{p, "Own", needsOf(ublktest.Own)},
		{p, "Figures", needsOf(ublktest.Plain)},
		{p, "Once", needsOf(ublktest.Once)},
		{p, "Ends", needsOf(ublktest.OldestAndNewest)},
		{p, "Long", needsOf(ublktest.Long)},
		{p, "Soak", needsOf(ublktest.Soak)},
		{p, "Kills", needsOf(ublktest.Soak, ublktest.EveryKernel, ublktest.Own)},
		{p, "Mars", needsOf("mars", ublktest.Systemd, ublktest.Own)},
	}
	all := testBeds()
	withoutRace := slices.DeleteFunc(slices.Clone(all), func(b *bed) bool { return b.race })
	for _, c := range []struct {
		name string
		planner
		want map[string]string
	}{
		{"quick", planner{tier: quick, beds: withoutRace}, map[string]string{
			"Plain": "uml host", "EveryKernel": "uml 6.18 6.12 host", "OldestKernel": "uml 6.12 host", "CPUs": "7.3 host",
			"CPUsEveryKernel": "7.3 6.18 6.12 host",
			"Own":             "uml", "Figures": "uml host", "Once": "uml host", "Ends": "uml host", "Long": "", "Soak": "uml host", "Kills": "uml 6.18 6.12",
		}},
		{"full", planner{tier: full, beds: all}, map[string]string{
			"Plain": "uml uml-race 7.3 6.18 6.12 host", "EveryKernel": "uml uml-race 7.3 6.18 6.12 host", "CPUs": "7.3 6.18 6.12 host",
			"CPUsEveryKernel": "7.3 6.18 6.12 host", "Own": "uml uml-race 7.3 6.18 6.12", "Figures": "uml 7.3 6.18 6.12 host",
			"Once": "uml host", "Ends": "uml uml-race 7.3 6.12 host", "OldestKernel": "uml uml-race 7.3 6.18 6.12 host",
			"Long": "uml uml-race 7.3 6.18 6.12 host",
		}},
		{"soak", planner{tier: soak, beds: withoutRace}, map[string]string{
			"Plain": "", "Long": "", "Soak": "uml host", "Kills": "uml 6.18 6.12",
		}},
		{"a kernel that was named", planner{tier: quick, beds: all[4:5], explicit: true}, map[string]string{
			"Plain": "6.12", "Once": "6.12", "Ends": "6.12", "Long": "6.12", "CPUs": "6.12",
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := c.plan(tests)
			for name, want := range c.want {
				if beds := got.bedsOf(name); beds != want {
					t.Errorf("%s runs on %q, want %q", name, beds, want)
				}
			}
		})
	}
}

// The plan names a test that no bed can run, and does not run a test of another tier.
func TestPlanNames(t *testing.T) {
	p := &pkg{Dir: "loop"}
	tests := []declared{{p, "TestA", needsOf(ublktest.Systemd)}, {p, "TestB", needsOf(ublktest.Long)}}
	got := planner{tier: quick, beds: testBeds()[:2]}.plan(tests)
	if len(got.homeless) != 1 || !strings.Contains(got.homeless[0], "loop.TestA") || !strings.Contains(got.homeless[0], "[systemd] on uml") {
		t.Errorf("homeless: %q", got.homeless)
	}
	if len(got.later) != 1 || got.later[0] != "loop.TestB" || len(got.placements) != 0 {
		t.Errorf("later: %q, placed: %+v", got.later, got.placements)
	}
}

func TestPlanOnly(t *testing.T) {
	tests := []declared{{&pkg{Dir: "loop"}, "TestA", needs{}}}
	got := planner{tier: full, beds: testBeds()}.plan(tests).only([]string{"6.12", "uml"})
	if beds := got.bedsOf("TestA"); beds != "uml 6.12" {
		t.Errorf("on %q", beds)
	}
}

// Each test is in exactly one group, and no group is much longer than its share.
func TestSplit(t *testing.T) {
	var placements []placement
	qemu, native := newBed("7.3"), newBed(umlKernel)
	for _, p := range []*pkg{{Dir: "loop"}, {Dir: "ublk"}} {
		for i := range 40 {
			placements = append(placements, placement{declared{p, p.Dir + strings.Repeat("x", i), needs{}}, qemu})
		}
		placements = append(placements, placement{declared{p, p.Dir + "native", needs{}}, native})
	}
	expect := func(p placement) float64 {
		if p.bed == native {
			return 1
		}
		return float64(len(p.name))
	}
	groups := split(placements, expect, 2)
	total := 0.0
	for _, p := range placements {
		total += expect(p)
	}
	seen, longest := map[string]int{}, max(total/2/4, worthStarting*start[machine])
	for i, g := range groups {
		for _, d := range g.tests {
			seen[d.pkg.Dir+d.name]++
		}
		if i > 0 && groups[i-1].seconds < g.seconds {
			t.Errorf("group %d is longer than that before it", i)
		}
		if g.seconds > longest+50 { // the last test of a group may exceed the share
			t.Errorf("a group takes %v seconds, more than %v", g.seconds, longest)
		}
	}
	if len(groups) < 8 {
		t.Errorf("%d groups are too few to even out two slots", len(groups))
	}
	if len(seen) != len(placements) {
		t.Errorf("%d of %d tests are in groups", len(seen), len(placements))
	}
	for name, n := range seen {
		if n != 1 {
			t.Errorf("%s is in %d groups", name, n)
		}
	}
}

// Tests that wait share one machine, which is no part of what the slots have to do. Its job
// needs no slot.
func TestSplitWaits(t *testing.T) {
	bed, loop := newBed(umlKernel), &pkg{Dir: "loop"}
	var placements []placement
	for i := range 10 {
		placements = append(placements,
			placement{declared{loop, fmt.Sprint("works", i), needs{}}, bed},
			placement{declared{loop, fmt.Sprint("waits", i), needsOf(ublktest.Waits)}, bed})
	}
	groups := split(placements, func(p placement) float64 {
		if p.needs[ublktest.Waits] {
			return 1000
		}
		return 10
	}, 2)
	b := &builder{}
	for _, g := range groups {
		waits := b.on(g.bed, g.tests, 0).waits
		for _, d := range g.tests {
			if d.needs[ublktest.Waits] != waits {
				t.Errorf("%s is in a group that waits: %v", d.name, waits)
			}
		}
		if waits && len(g.tests) != 10 {
			t.Errorf("%d of the tests that wait are in one group", len(g.tests))
		}
	}
	if len(groups) != 6 { // 100 seconds of work in groups of 24 at most
		t.Errorf("there are %d groups", len(groups))
	}
}

// A process with the race detector has few tests, however short they are.
func TestSplitRace(t *testing.T) {
	bed, loop := newBed(umlKernel).withRace(), &pkg{Dir: "loop"}
	var placements []placement
	for i := range 3*raceTests + 1 {
		placements = append(placements, placement{declared{loop, fmt.Sprint(i), needs{}}, bed})
	}
	tests := 0
	groups := split(placements, func(p placement) float64 { return 0.01 * float64(len(p.name)) }, 2)
	for _, g := range groups {
		if len(g.tests) > raceTests {
			t.Errorf("%d tests in a group, more than %d", len(g.tests), raceTests)
		}
		tests += len(g.tests)
	}
	if tests != len(placements) {
		t.Errorf("%d of %d tests are in groups", tests, len(placements))
	}
}
