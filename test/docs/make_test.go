package docs

import (
	"slices"
	"strings"
	"testing"
)

// Each target of make that a document names exists.
func TestTargets(t *testing.T) {
	var targets []string
	each(read(t, func(path string) bool { return path == "Makefile" }), `(?m)^([a-z][a-z -]*):`, func(_ string, _ int, groups []string) {
		targets = append(targets, strings.Fields(groups[1])...)
	})
	found := 0
	each(read(t, isMarkdown), "(?m)(?:`|^    |[A-Z]+=\\S+ )make((?: [a-z][a-z-]*)+)", func(path string, line int, groups []string) {
		for _, target := range strings.Fields(groups[1]) {
			found++
			if !slices.Contains(targets, target) {
				t.Errorf("%s:%d: make has no target %s", path, line, target)
			}
		}
	})
	if found < 50 {
		t.Errorf("only %d targets were found", found)
	}
}
