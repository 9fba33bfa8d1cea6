package docs

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Each test that a document or a comment names exists. A name that ends in … stands for the
// tests that begin with it, one after … for those that end with it, and one after -run for
// those that contain it.
func TestNamesOfTests(t *testing.T) {
	var tests []string
	source := read(t, func(path string) bool { return strings.HasSuffix(path, "_test.go") })
	each(source, `(?m)^func ((?:Test|Fuzz|Benchmark)\w+)\(`, func(_ string, _ int, groups []string) {
		tests = append(tests, groups[1])
	})
	texts := read(t, func(path string) bool {
		return isText(path) && !strings.HasPrefix(path, "scripts/testrun/") // its tests invent names
	})
	for path, text := range texts {
		if filepath.Ext(path) == ".go" {
			texts[path] = comments(text)
		}
	}
	found := 0
	each(texts, `(-run\s+)?(…[A-Z]\w*|\b(?:Test|Fuzz)[A-Z]\w*…?)`, func(path string, line int, groups []string) {
		found++
		name := strings.Trim(groups[2], "…")
		matches := func(test string) bool {
			switch {
			case groups[1] != "":
				return strings.Contains(test, name)
			case strings.HasSuffix(groups[2], "…"):
				return strings.HasPrefix(test, name)
			case strings.HasPrefix(groups[2], "…"):
				return strings.HasSuffix(test, name)
			}
			return test == name
		}
		if !slices.ContainsFunc(tests, matches) {
			t.Errorf("%s:%d: there is no test %s", path, line, groups[2])
		}
	})
	if found < 500 {
		t.Errorf("only %d names were found", found)
	}
}

// comments empties the lines of Go source that are not comments alone.
func comments(source string) string {
	lines := strings.Split(source, "\n")
	for i, l := range lines {
		if !strings.HasPrefix(strings.TrimSpace(l), "//") {
			lines[i] = ""
		}
	}
	return strings.Join(lines, "\n")
}
