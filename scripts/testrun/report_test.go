package main

import (
	"slices"
	"strings"
	"testing"
)

// one returns the result of a test with one leaf.
func one(bed, test, how string) result {
	return result{Bed: bed, Pkg: "loop", Test: root(test), Leaves: []leaf{{Name: test, How: how}}}
}

func TestSum(t *testing.T) {
	lacking := one("here", "TestCPU", skipped)
	lacking.Leaves[0].Lacks = "AVX-512"
	got := sum([]result{
		one("uml", "TestA", passed), one("7.3", "TestA", passed), // each bed counts
		one("uml", "TestB", skipped), one("7.3", "TestB", passed), // TestB ran on one bed
		one("uml", "TestC", skipped), one("7.3", "TestC/x", passed), // the subtest ran on one bed
		one("uml", "TestD", skipped), one("7.3", "TestD", skipped), // TestD ran on no bed, and counts once
		one("uml", "TestE/x", skipped), one("7.3", "TestE/y", passed), // TestE/x ran on no bed, but TestE/y did
		one("uml", "TestF", failed), lacking,
	})
	if got.passed != 5 || got.failed != 1 || got.skipped != 3 {
		t.Errorf("%+v", got)
	}
	if !slices.Equal(got.nowhere, []string{"loop.TestD", "loop.TestE/x"}) || !slices.Equal(got.lacks, []string{"loop.TestCPU: AVX-512"}) {
		t.Errorf("nowhere %q, lacking %q", got.nowhere, got.lacks)
	}
	if got.demand(); got.failed != 3 || got.skipped != 1 || len(got.failures) != 3 {
		t.Errorf("of a whole run: %+v", got)
	}
}

func TestPrint(t *testing.T) {
	for _, c := range []struct {
		totals   totals
		unsteady []string
		want     string
		good     bool
	}{
		{totals{passed: 2}, nil, "0 unsteady: none\n2 passed, 0 failed, 0 skipped\n", true},
		{totals{}, nil, "0 unsteady: none\n0 passed, 0 failed, 0 skipped\n", false},
		{
			totals{passed: 2, failed: 1, skipped: 1, failures: []string{"uml loop.TestA"}, nowhere: []string{"loop.TestB"}},
			[]string{"7.3 loop.TestD", "6.12 loop.TestC"},
			"skipped: loop.TestB\nfailed: uml loop.TestA\n2 unsteady: 6.12 loop.TestC, 7.3 loop.TestD\n2 passed, 1 failed, 1 skipped\n", false,
		},
	} {
		var out strings.Builder
		c.totals.print(&out, c.unsteady)
		if out.String() != c.want || c.totals.isGood() != c.good {
			t.Errorf("good %v, printed:\n%swant %v:\n%s", c.totals.isGood(), &out, c.good, c.want)
		}
	}
}
