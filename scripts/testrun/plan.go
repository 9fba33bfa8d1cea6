package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// tier is how much a run tests.
type tier string

const (
	unit  tier = "unit"  // tests that need no kernel
	quick tier = "quick" // each test on the bed where it tests most
	full  tier = "full"  // each test on every bed
	soak  tier = "soak"  // tests that can go on for hours
)

// declared is a test of the kernel with the needs that it declares.
type declared struct {
	pkg   *pkg
	name  string
	needs needs
}

func (d declared) String() string { return testName(d.pkg.Dir, d.name) }

// placement is a test on a bed.
type placement struct {
	declared
	bed *bed
}

// plan decides which tests run on which beds.
type plan struct {
	placements []placement
	homeless   []string // tests that no bed of the run can run, with what is missing
	later      []string // tests that belong to another tier
}

// planner decides where tests run.
type planner struct {
	tier tier
	beds []*bed // best first
	// explicit means that --kernel named the beds; each bed then runs all tests that it
	// can.
	explicit bool
}

// plan places each test on its beds.
func (p planner) plan(tests []declared) plan {
	var result plan
	for _, t := range tests {
		if p.isLater(t) {
			result.later = append(result.later, t.String())
			continue
		}
		beds := p.place(t)
		if len(beds) == 0 {
			result.homeless = append(result.homeless, fmt.Sprintf("%s: no bed has %s", t, p.lacking(t)))
		}
		for _, b := range beds {
			result.placements = append(result.placements, placement{t, b})
		}
	}
	return result
}

// isLater reports whether a test belongs to another tier.
func (p planner) isLater(t declared) bool {
	return p.tier == soak && !t.needs[ublktest.Soak] ||
		p.tier == quick && !p.explicit && t.needs[ublktest.Long]
}

// place returns the beds for a test.
func (p planner) place(t declared) []*bed {
	var able []*bed
	for _, b := range p.beds {
		if len(t.needs.missing(b.has)) == 0 {
			able = append(able, b)
		}
	}
	if len(able) == 0 || p.explicit {
		return able
	}
	first := able[0]
	return slices.DeleteFunc(able, func(b *bed) bool { return b != first && !p.alsoOn(t, b) })
}

// alsoOn reports whether a test also runs on a bed that is not its best.
func (p planner) alsoOn(t declared, b *bed) bool {
	oldest, newest := p.ends()
	switch {
	case b.kind == host:
		return true
	case p.tier != full:
		wanted := t.needs[ublktest.EveryKernel] || t.needs[ublktest.OldestKernel] && b == oldest
		return wanted && b.kind == machine && b != newest
	case t.needs[ublktest.Once]:
		return false
	case t.needs[ublktest.OldestAndNewest]:
		return b.kind == uml || b == oldest || b == newest
	}
	return true
}

// ends returns the oldest and the newest kernel among those of the virtual machines.
func (p planner) ends() (oldest, newest *bed) {
	for _, b := range p.beds {
		if b.kind != machine {
			continue
		}
		if newest == nil {
			newest = b
		}
		oldest = b
	}
	return oldest, newest
}

// lacking describes for each bed what it lacks for a test.
func (p planner) lacking(t declared) string {
	var words []string
	for _, b := range p.beds {
		words = append(words, fmt.Sprintf("%v on %s", t.needs.missing(b.has), b.name))
	}
	return strings.Join(words, ", ")
}

// only keeps the placements on the named beds.
func (p plan) only(names []string) plan {
	p.placements = slices.DeleteFunc(p.placements, func(pl placement) bool { return !slices.Contains(names, pl.bed.name) })
	return p
}

// testName returns a name like "loop.TestKernelLimits".
func testName(dir, test string) string { return strings.TrimSuffix(dir+"."+test, ".") }
