package docs

import (
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Each link leads to a file, or to a section of one.
func TestLinks(t *testing.T) {
	texts := read(t, isMarkdown)
	each(texts, `\]\(([^)\s]+)\)`, func(from string, line int, groups []string) {
		if strings.Contains(groups[1], "://") {
			return
		}
		to, section, _ := strings.Cut(groups[1], "#")
		if to = path.Join(path.Dir(from), to); groups[1][0] == '#' {
			to = from
		}
		switch {
		case !exists(to):
			t.Errorf("%s:%d: there is no %s", from, line, to)
		case section != "" && !slices.Contains(sections(texts[to]), section):
			t.Errorf("%s:%d: %s has no section %s", from, line, to, section)
		}
	})
}

// sections returns the names by which links call the headings of a text.
func sections(text string) []string {
	var names []string
	text = regexp.MustCompile("(?ms)^```.*?^```").ReplaceAllString(text, "") // a comment in code is no heading
	for _, heading := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(text, -1) {
		name := regexp.MustCompile(`[^\w\- ]`).ReplaceAllString(strings.ToLower(heading[1]), "")
		names = append(names, strings.ReplaceAll(name, " ", "-"))
	}
	return names
}

// Each path from the top directory that a document has between backquotes exists, and each
// document that any text names.
func TestPaths(t *testing.T) {
	entries, err := os.ReadDir(top)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, entry := range entries {
		if entry.IsDir() && entry.Name() != "bin" {
			names = append(names, regexp.QuoteMeta(entry.Name()))
		}
	}
	check := func(from string, line int, groups []string) {
		if !exists(groups[1]) {
			t.Errorf("%s:%d: there is no %s", from, line, groups[1])
		}
	}
	each(read(t, isMarkdown), "`((?:"+strings.Join(names, "|")+")/[\\w./-]+)`", check)
	each(read(t, isText), `\b(docs/[\w-]+\.(?:md|json|svg|8))\b`, check)
}
