package main

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// group is the tests of one package that run together on a bed.
type group struct {
	bed     *bed
	tests   []declared
	seconds float64 // expected
}

// expected is how long the group's machine is expected to run.
func (g group) expected() time.Duration {
	return time.Duration((g.seconds + start[g.bed.kind]) * float64(time.Second))
}

// worthStarting limits how far a package's tests are split between machines: the tests in
// one machine take at least this many times as long as its start.
const worthStarting = 12

// raceTests is the largest number of tests of one process with the race detector in user-mode
// Linux. The detector keeps the pages of a process until its end, and the host maps almost each
// page of a guest by itself. A process that has as many mappings as the host allows hangs
// (vm.max_map_count, 65530 by default).
const raceTests = 8

// split makes groups of the placements so that no group takes much longer than the others
// that run at the same time. slots is how many groups do. Tests that mostly wait are in
// groups of their own.
func split(placements []placement, expect func(placement) float64, slots int) []group {
	type where struct {
		bed   *bed
		pkg   *pkg
		waits bool
	}
	parts := map[where][]placement{}
	var order []where
	total := 0.0
	for _, p := range placements {
		w := where{p.bed, p.pkg, p.needs[ublktest.Waits]}
		if parts[w] == nil {
			order = append(order, w)
		}
		parts[w] = append(parts[w], p)
		if !w.waits {
			total += expect(p)
		}
	}
	var groups []group
	for _, w := range order {
		// Groups of a quarter of a slot's share even out the ends of the slots.
		longest := max(total/float64(slots)/4, worthStarting*start[w.bed.kind])
		if w.waits {
			longest = math.Inf(1) // Only one such group runs at a time.
		}
		groups = append(groups, pack(w.bed, parts[w], expect, longest)...)
	}
	slices.SortStableFunc(groups, func(a, b group) int { return cmp.Compare(b.seconds, a.seconds) })
	return groups
}

// pack distributes the tests of one package on one bed over as few groups as keep each
// below the time longest. It takes the longest test first, and adds it to the group with
// the least time.
func pack(bed *bed, tests []placement, expect func(placement) float64, longest float64) []group {
	sum := 0.0
	for _, p := range tests {
		sum += expect(p)
	}
	most := len(tests)
	if bed.race {
		most = raceTests
	}
	groups := make([]group, max(1, int(math.Ceil(sum/longest)), (len(tests)+most-1)/most))
	sorted := slices.Clone(tests)
	slices.SortStableFunc(sorted, func(a, b placement) int { return cmp.Compare(expect(b), expect(a)) })
	for _, p := range sorted {
		g := shortest(groups, most)
		g.bed = bed
		g.tests = append(g.tests, p.declared)
		g.seconds += expect(p)
	}
	return slices.DeleteFunc(groups, func(g group) bool { return len(g.tests) == 0 })
}

// shortest returns the group with the least time among those with fewer than most tests.
func shortest(groups []group, most int) *group {
	var found *group
	for i := range groups {
		if g := &groups[i]; len(g.tests) < most && (found == nil || g.seconds < found.seconds) {
			found = g
		}
	}
	return found
}
