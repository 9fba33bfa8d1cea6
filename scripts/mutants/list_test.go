package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	src, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return src
}

const (
	boundary = "loop/clamp.go Clamp boundary: value > limit -> value >= limit"
	removed  = "loop/clamp.go Clamp removed: value = limit ->"
)

func TestEquivalents(t *testing.T) {
	for list, want := range map[string]string{
		"# comment\n" + boundary + "\n\tassigns limit\n\tto what equals it\n": "",
		"# comment\n" + removed + " \n\tx\n" + boundary + "\n\ty\n":           "",
		"# comment\n" + boundary + "\n\ty\n" + removed + "\n\tx":              "",
		boundary + "\n": "no reason",
		"\treason\n":    "without a mutant",
		boundary + "\n\tx\n" + boundary + "\n\ty":                         "listed twice",
		strings.Replace(boundary, ">=", "==", 1) + "\n\tx\n":              "no such mutant",
		strings.Replace(boundary, "clamp.go", "gone.go", 1) + "\n\tx\n":   "no such mutant",
		strings.Replace(boundary, "loop/clamp.go", "go.mod", 1) + "\n\tx": "", // a key of a file outside of this run's packages
	} {
		path := filepath.Join(t.TempDir(), "list")
		if err := os.WriteFile(path, []byte(list), 0o644); err != nil {
			t.Fatal(err)
		}
		module(t)
		p, all := load1(t)
		e, err := readEquivalents(path)
		if err == nil {
			err = e.mark(all, []*pkg{p})
		}
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: error %v, not %q", list, err, want)
		}
		for _, m := range all {
			key := strings.TrimSpace(m.key())
			if listed := strings.HasPrefix(list, "#") && (key == boundary || key == removed && strings.Contains(list, removed)); err == nil && m.equivalent != listed {
				t.Errorf("%q: %s is equivalent: %v", list, m.key(), m.equivalent)
			}
		}
	}
}

// A change of the source must not leave an entry without a mutant, because each run would
// then end with an error.
func TestLongEquivalentsOfTheTree(t *testing.T) {
	t.Chdir("../..")
	packages, err := load(t.Context(), defaultPackages)
	if err != nil {
		t.Fatal(err)
	}
	var all []*mutant
	for _, p := range packages {
		all = append(all, p.mutants()...)
	}
	e, err := readEquivalents("scripts/mutants/equivalent.txt")
	if err != nil {
		t.Fatal(err)
	}
	if err := e.mark(all, packages); err != nil {
		t.Error(err)
	}
	if len(all) < 1000 || len(e.reasons) == 0 {
		t.Errorf("%d mutants, %d of them listed", len(all), len(e.reasons))
	}
}

func TestReport(t *testing.T) {
	module(t)
	_, all := load1(t)
	r := &report{total: 5, results: map[*mutant]*result{
		all[0]: {}, all[1]: {Caught: true, How: "x"}, all[2]: {Caught: true, How: "--- FAIL: TestX"}, all[3]: {},
	}}
	all[2].equivalent, all[3].equivalent = true, true
	var out bytes.Buffer
	r.print(&out)
	for _, want := range []string{
		"survived: loop/clamp.go:10: boundary, in Clamp, mutant " + all[0].id() + "\n  -\tif value < 0 {\n  +\tif value <= 0 {\n",
		"listed as equivalent, but caught by --- FAIL: TestX: " + all[2].key() + "\n",
		"1 mutants were not run\n", "\n1 caught, 1 survived, 2 equivalent\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in %q", want, out.String())
		}
	}
	if err := r.verdict(50); err == nil || !strings.Contains(err.Error(), "list") {
		t.Errorf("an equivalent mutant was caught: error %v", err)
	}
	all[2].equivalent = false
	for goal, fails := range map[int]bool{66: false, 67: true} {
		if err := r.verdict(goal); (err != nil) != fails {
			t.Errorf("2 of 3 with goal %d: error %v", goal, err)
		}
	}
}

func TestReadProfile(t *testing.T) {
	p := &pkg{path: "example.com/m/loop", dir: "loop"}
	const profile = "mode: set\nexample.com/m/loop/a.go:3.10,5.2 1 1\nexample.com/m/loop/a.go:7.1,8.2 1 0\nexample.com/m/ring/a.go:9.1,9.9 1 1\n"
	blocks, err := readProfile(strings.NewReader(profile), p)
	if err != nil {
		t.Fatal(err)
	}
	for position, want := range map[[2]int]bool{
		{3, 9}: false, {3, 10}: true, {4, 1}: true, {5, 1}: true, {5, 2}: false, {7, 5}: false, {9, 2}: false,
	} {
		if got := len(covering([]*test{{Blocks: blocks}}, &mutant{file: "loop/a.go", line: position[0], col: position[1]})) > 0; got != want {
			t.Errorf("%d:%d is covered: %v", position[0], position[1], got)
		}
	}
	if _, err := readProfile(strings.NewReader("nonsense"), p); err == nil {
		t.Error("nonsense is a profile")
	}
}

// A result is valid for one state of the sources. A change of a test, of its data or of
// an imported package changes the digest.
func TestDigest(t *testing.T) {
	module(t)
	seen := map[string]string{}
	for _, change := range []struct{ file, text string }{
		{"loop/x_test.go", "package loop\n"},
		{"loop/testdata/deep/x", "x"},
		{"loop/testdata/deep/x", "y"},
		{"ring/ring.go", "package ring\n"},
		{"loop/y.go", "package loop\n\nimport _ \"example.com/module/ring\"\n"},
		{"ring/ring.go", "package ring\n\nvar X int\n"},
		{"go.sum", "\n"},
	} {
		if err := os.MkdirAll(filepath.Dir(change.file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(change.file, []byte(change.text), 0o644); err != nil {
			t.Fatal(err)
		}
		directories, err := directoriesOf(t.Context(), "loop")
		if err != nil {
			t.Fatal(err)
		}
		sum, err := digest(directories)
		if err != nil {
			t.Fatal(err)
		}
		same := seen[sum]
		if imported := change.file != "ring/ring.go" || len(seen) > 3; imported == (same != "") {
			t.Errorf("%s: digest as of %q", change.file, same)
		}
		seen[sum] = change.file
	}
}
