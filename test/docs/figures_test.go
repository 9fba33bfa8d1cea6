package docs

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// figures has measured figures that several documents have. The first group of each pattern is
// the figure.
var figures = []struct {
	name     string
	patterns map[string]string
}{
	{"memory of a device with a server of its own", map[string]string{
		"docs/performance.md": `memory of its two processes \| (\S+ MiB) \(PSS`,
		"docs/design.md":      `device with two queues take (\S+ MiB) with zero copy`,
		"docs/serve.md":       `A server of its own takes (\S+ MiB)`,
	}},
	{"memory of each of many devices", map[string]string{
		"docs/serve.md": `user memory \(PSS\) \| (\d+ KiB)`,
		"CHANGELOG.md":  `threads and (\d+ KiB) of user memory`,
	}},
	{"threads of each of many devices", map[string]string{
		"docs/serve.md": `\| threads \| (\S+) \(`,
		"CHANGELOG.md":  `zero copy: (\S+) threads`,
	}},
	{"memory of a device with a store", map[string]string{
		"docs/performance.md": `each of the last 150 adds (\d+ KiB)`,
		"docs/cow.md":         `A device with a store and one queue takes (\d+ KiB)`,
		"CHANGELOG.md":        `A device with a store and one queue takes (\d+ KiB)`,
	}},
	{"speed of the hash", map[string]string{
		"docs/performance.md": `The hash alone, natively, has (\S+) times`,
		"docs/verity.md":      `\| the hash alone \| (\S+) \|`,
	}},
	{"speed of the check of a block", map[string]string{
		"docs/performance.md": `as a device does it (\d\.\d+)`,
		"docs/verity.md":      `their hash blocks remembered \| (\S+) \|`,
	}},
}

// A figure is the same in each document.
func TestFigures(t *testing.T) {
	texts := read(t, isMarkdown)
	for _, figure := range figures {
		values := map[string]string{}
		for path, pattern := range figure.patterns {
			m := regexp.MustCompile(pattern).FindStringSubmatch(strings.Join(strings.Fields(texts[path]), " "))
			if m == nil {
				t.Errorf("%s: %s has no match of %s", figure.name, path, pattern)
				continue
			}
			values[m[1]] += " " + path
		}
		if len(values) > 1 {
			t.Errorf("%s: %v", figure.name, values)
		}
	}
}

// The README has the ratios of the two tables about copy-on-write in docs/performance.md.
func TestRatios(t *testing.T) {
	texts := read(t, isMarkdown)
	_, section, _ := strings.Cut(texts["docs/performance.md"], "\n### Copy-on-write\n")
	for label, rows := range map[string][]string{
		"first writes, depth 1, chunks of 16 and 64 KiB": {"first writes, depth 1, chunks of 16 KiB", "first writes, depth 1, 64 KiB"},
		"first writes, depth 32":                         {"first writes, depth 32, 16 KiB", "first writes, depth 32, 64 KiB"},
		"rewrites, depth 1":                              {"rewrites, depth 1, 64 KiB"},
		"rewrites, depth 32":                             {"rewrites, depth 32, 64 KiB"},
		"reads without exceptions, depth 32":             {"reads without exceptions, depth 32, 64 KiB"},
	} {
		var want [4]string // ublk-loop on RAM disks and on ext4, the same with --on-crash
		for _, row := range rows {
			tables := operations(section, row)
			if len(tables) < 2 {
				t.Fatalf("docs/performance.md has %d rows %q", len(tables), row)
			}
			for i := range want {
				cells := tables[i%2]
				want[i] += fmt.Sprintf(", %.2f", cells[1+i/2]/cells[0])
			}
		}
		line := "| " + label
		for _, cell := range want {
			line += " | " + cell[2:]
		}
		if !strings.Contains(texts["README.md"], line+" |\n") {
			t.Errorf("README.md lacks %s |", line)
		}
	}
}

// operations returns the numbers of operations in each row of a label: dm-snapshot, ublk-loop and
// ublk-loop with --on-crash.
func operations(section, label string) [][3]float64 {
	var rows [][3]float64
	row := regexp.MustCompile(`(?m)^\| ` + regexp.QuoteMeta(label) + ` \| ([\d,]+)[^|]*\| ([\d,]+)[^|]*\| ([\d,]+)`)
	for _, m := range row.FindAllStringSubmatch(section, -1) {
		var cells [3]float64
		for i, text := range m[1:] {
			cells[i], _ = strconv.ParseFloat(strings.ReplaceAll(text, ",", ""), 64)
		}
		rows = append(rows, cells)
	}
	return rows
}
