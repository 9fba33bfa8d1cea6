package docs

import (
	"path"
	"slices"
	"strings"
	"testing"
)

// docs/design.md has each package of the main module, except those for tests, and examples,
// and files that the command contains.
func TestPackages(t *testing.T) {
	design := read(t, func(path string) bool { return path == "docs/design.md" })["docs/design.md"]
	var packages []string
	for file := range read(t, func(path string) bool {
		return strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go")
	}) {
		if dir := path.Dir(file); !slices.Contains(packages, dir) {
			packages = append(packages, dir)
		}
	}
	for _, dir := range packages {
		switch first, _, _ := strings.Cut(dir, "/"); {
		case first == "scripts" || first == "test" || strings.HasSuffix(dir, "test"):
		case strings.HasPrefix(dir, "cmd/") || strings.Contains(dir, "/example"):
		case !strings.Contains(design, "](../"+dir+")"):
			t.Errorf("docs/design.md lacks %s", dir)
		}
	}
}
