package main

import (
	"strings"
	"testing"
)

// follow summarizes a stream that has one event to a line, each "ACTION PACKAGE TEST OUTPUT" with - for nothing.
func follow(t *testing.T, stream string) (*summary, string) {
	t.Helper()
	var out strings.Builder
	s := &summary{out: &out, label: "7.3", tests: map[key]*test{}}
	for line := range strings.Lines(stream) {
		f := strings.SplitN(strings.TrimSpace(line), " ", 4)
		for i := range f {
			f[i] = strings.TrimPrefix(f[i], "-")
		}
		s.add(event{Action: f[0], Package: f[1], Test: f[2], Output: f[3] + "\n"})
	}
	s.finish()
	return s, out.String()
}

func TestCounts(t *testing.T) {
	for _, c := range []struct {
		name, stream            string
		passed, failed, skipped int
	}{
		{"nothing", "", 0, 0, 0},
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
		{"a stream that breaks off in a subtest", `
			run p TestA -
			run p TestA/x -`, 0, 1, 0},
		{"a package that fails outside of its tests", `
			pass p TestA -
			pass p - -
			fail p - -`, 1, 1, 0},
		{"a failure of no package, after another", `
			fail p TestA -
			fail - - -`, 0, 1, 0},
		{"a failure of no package, alone", `
			pass p TestA -
			fail - - -`, 1, 1, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, out := follow(t, strings.TrimSpace(c.stream))
			if s.passed != c.passed || s.failed != c.failed || s.skipped != c.skipped {
				t.Errorf("%d passed, %d failed, %d skipped, expected %d, %d, %d; printed:\n%s",
					s.passed, s.failed, s.skipped, c.passed, c.failed, c.skipped, out)
			}
		})
	}
}

func TestOutput(t *testing.T) {
	_, out := follow(t, `output x/loop TestA why it failed
		fail x/loop TestA -
		output x/loop TestB not needed
		pass x/loop TestB -
		output x/loop TestC no such feature
		skip x/loop TestC -`)
	expected := `FAIL  7.3    loop.TestA (0.00s)
why it failed
ok    7.3    loop.TestB (0.00s)
skip  7.3    loop.TestC (0.00s)
no such feature
`
	if out != expected {
		t.Errorf("printed:\n%sexpected:\n%s", out, expected)
	}
}

func TestDone(t *testing.T) {
	s, _ := follow(t, `pass p TestA -
		fail p TestB -
		run p TestC -
		run p TestC/x -
		run p TestC/y -
		pass p TestC/x -
		skip p TestC/y -
		pass p TestC -
		run p TestD -
		run p TestD/x -
		pass p TestD/x -
		run p TestE -`)
	names, passed, skipped := s.done()
	if got := strings.Join(names, " "); got != "TestA TestC" || passed != 2 || skipped != 1 {
		t.Errorf("done: %s, %d passed, %d skipped; want TestA and TestC, 2 and 1", got, passed, skipped)
	}
}
