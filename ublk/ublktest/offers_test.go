package ublktest

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestSeries(t *testing.T) {
	for release, want := range map[string]string{
		"6.12.117+deb13-cloud-amd64": "6.12", "7.3.4": "7.3", "7.3-rc1": "7.3", "6.1": "6.1", "": ".",
	} {
		if got := series(release); got != want {
			t.Errorf("%q is of %q, want %q", release, got, want)
		}
	}
}

// Matrix has the same kernels as scripts/kernels.txt.
func TestMatrixIsThatOfTheScripts(t *testing.T) {
	text, err := os.ReadFile("../../scripts/kernels.txt")
	if err != nil {
		t.Fatal(err)
	}
	matrix := map[string]bool{}
	version := regexp.MustCompile(`\slinux-[a-z-]+-([0-9]+\.[0-9]+)`)
	for line := range strings.Lines(string(text)) {
		if name, _, _ := strings.Cut(line, "#"); strings.TrimSpace(name) == "" {
			continue
		}
		found := version.FindStringSubmatch(line)
		if found == nil {
			t.Errorf("no version in %q", line)
			continue
		}
		matrix[found[1]] = true
	}
	known, want := slices.Sorted(maps.Keys(Matrix)), slices.Sorted(maps.Keys(matrix))
	if !slices.Equal(known, want) {
		t.Errorf("known are the kernels %q, the matrix has %q", known, want)
	}
}
