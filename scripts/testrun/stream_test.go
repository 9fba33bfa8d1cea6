package main

import (
	"strings"
	"testing"
)

// followed is a stream with its results and what it printed.
type followed struct {
	*stream
	results []result
	printed strings.Builder
}

// events passes events to a stream. Each line is one event, "ACTION PACKAGE TEST OUTPUT",
// with - for an empty word. The output of an attribute is "KEY=VALUE".
func events(t *testing.T, lines string) *followed {
	t.Helper()
	f := &followed{}
	f.stream = newStream(&f.printed, "7.3", func(r result) { f.results = append(f.results, r) })
	for text := range strings.Lines(strings.TrimSpace(lines)) {
		word := strings.SplitN(strings.TrimSpace(text), " ", 4)
		for i := range word {
			word[i] = strings.TrimPrefix(word[i], "-")
		}
		e := event{Action: word[0], Package: word[1], Test: word[2], Output: word[3] + "\n"}
		if e.Action == "attr" {
			e.Key, e.Value, _ = strings.Cut(word[3], "=")
		}
		f.add(e)
	}
	return f
}

func TestCounts(t *testing.T) {
	for _, c := range []struct {
		name, stream            string
		passed, failed, skipped int
	}{
		{"nothing", "output p - -", 0, 0, 0},
		{"one of each", `
			pass p TestA -
			fail p TestB -
			skip p TestC -
			fail p - -`, 1, 1, 1},
		{"subtests count, not their parent", `
			run p TestA -
			run p TestA/x -
			run p TestA/y/z -
			pass p TestA/x -
			fail p TestA/y/z -
			fail p TestA -`, 1, 1, 0},
		{"a parent that fails by itself", `
			run p TestA -
			run p TestA/x -
			pass p TestA/x -
			fail p TestA -`, 1, 1, 0},
		{"a repeated test, whose last run counts", `
			run p TestA -
			run p TestA/x -
			fail p TestA/x -
			fail p TestA -
			run p TestA -
			run p TestA/x -
			run p TestA/y -
			pass p TestA/x -
			pass p TestA/y -
			pass p TestA -`, 2, 1, 0},
		{"a stream that breaks off in a subtest", `
			run p TestA -
			run p TestA/x -`, 0, 1, 0},
		{"a package that fails outside of its tests", `
			pass p TestA -
			fail p - -`, 1, 1, 0},
		{"a package that fails with its test", `
			fail p TestA -
			fail p - -`, 0, 1, 0},
		{"a package that panics after a test has timed out", `
			fail p TestA -
			output p - panic: in a cleanup
			fail p - -`, 0, 2, 0},
		{"a package with a data race after a test has timed out", `
			fail p TestA -
			output p - WARNING: DATA RACE
			fail p - -`, 0, 2, 0},
		{"a package that ends for the time limit of its test", `
			fail p TestA -
			output p - panic: test timed out after 10m0s
			fail p - -`, 0, 1, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := events(t, c.stream)
			f.finish(false)
			got := sum(f.results)
			if got.passed != c.passed || got.failed != c.failed || got.skipped != c.skipped {
				t.Errorf("%d passed, %d failed, %d skipped, expected %d, %d, %d; printed:\n%s",
					got.passed, got.failed, got.skipped, c.passed, c.failed, c.skipped, &f.printed)
			}
		})
	}
}

func TestOutput(t *testing.T) {
	f := events(t, `output x/loop TestA why it failed
		fail x/loop TestA -
		output x/loop TestB not needed
		pass x/loop TestB -
		output x/loop TestC no such feature
		skip x/loop TestC -`)
	expected := `FAIL  7.3    x/loop.TestA (0.00s)
why it failed
ok    7.3    x/loop.TestB (0.00s)
skip  7.3    x/loop.TestC (0.00s)
no such feature
`
	if f.printed.String() != expected {
		t.Errorf("printed:\n%sexpected:\n%s", &f.printed, expected)
	}
}

// The result of a test has the leaves of that test only, in spite of another test whose
// name begins with its name.
func TestResult(t *testing.T) {
	f := events(t, `run p TestA -
		run p TestA/x -
		run p TestAB -
		pass p TestAB -
		attr p TestA/x lacks=AVX-512
		skip p TestA/x -
		run p TestA/y -
		pass p TestA/y -
		pass p TestA -`)
	if len(f.results) != 2 || f.results[0].Test != "TestAB" || f.results[1].Test != "TestA" {
		t.Fatalf("results are %+v", f.results)
	}
	leaves := f.results[1].Leaves
	if len(leaves) != 2 || leaves[0] != (leaf{"TestA/x", skipped, "AVX-512", false}) || leaves[1] != (leaf{"TestA/y", passed, "", false}) {
		t.Errorf("leaves are %+v", leaves)
	}
}
