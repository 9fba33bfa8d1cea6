package ublk_test

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The README shows existing programs without their imports, and they are as short as it says.
func TestReadmeShowsThePrograms(t *testing.T) {
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	var shown []string
	for _, match := range regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(string(readme), -1) {
		shown = append(shown, match[1])
	}
	programs := map[string]int{"null": 10, "httpdisk": 20}
	for name, most := range programs {
		source, err := os.ReadFile("example/" + name + "/main.go")
		if err != nil {
			t.Fatal(err)
		}
		_, code, found := strings.Cut(string(source), "\n)\n\n") // after the imports
		if !found || !slices.Contains(shown, code) {
			t.Errorf("the README does not show program %s as it is", name)
		}
		if n := strings.Count(strings.ReplaceAll(code, "\n\n", "\n"), "\n"); n == 0 || n > most {
			t.Errorf("program %s has %d lines, want at most %d", name, n, most)
		}
	}
	if len(shown) != len(programs) {
		t.Errorf("the README shows %d programs, want %d", len(shown), len(programs))
	}
}
