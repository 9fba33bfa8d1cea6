package snapshotter

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// codeText is a text in backquotes.
var codeText = regexp.MustCompile("`([^`]+)`")

// The table of labels has exactly those of the code, and so has the column of labels in the table
// of annotations.
func TestLabelsAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../../../docs/containers.md")
	if err != nil {
		t.Fatal(err)
	}
	for head, column := range map[string]int{"| `" + labelPrefix + "` |": 0, "| `dev.ublk-loop.rootfs.` |": 3} {
		_, table, _ := strings.Cut(string(text), head)
		table, _, _ = strings.Cut(table, "\n\n")
		var documented []string
		for _, row := range strings.Split(table, "\n")[2:] {
			cell := strings.Split(row, " | ")[column]
			for _, name := range codeText.FindAllStringSubmatch(cell, -1) {
				documented = append(documented, name[1])
			}
		}
		slices.Sort(documented)
		known := slices.Sorted(slices.Values(labelNames))
		if !slices.Equal(documented, known) {
			t.Errorf("documented below %s are %q, known are %q", head, documented, known)
		}
	}
	for _, label := range []string{ImageLabel, OptionsLabel, FSTypeLabel} {
		if !slices.Contains(labelNames, strings.TrimPrefix(label, labelPrefix)) {
			t.Errorf("%s is missing", label)
		}
	}
}
