package docs

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// top is the top directory of the source.
const top = "../.."

// read returns the text of each file of the source whose path, from the top, matches.
func read(t *testing.T, matches func(path string) bool) map[string]string {
	t.Helper()
	texts := map[string]string{}
	err := fs.WalkDir(os.DirFS(top), ".", func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && slices.Contains([]string{".git", "bin", "testdata"}, entry.Name()):
			return fs.SkipDir
		case !entry.Type().IsRegular() || !matches(path):
			return nil
		}
		text, err := os.ReadFile(filepath.Join(top, path))
		texts[path] = string(text)
		return err
	})
	if err != nil || len(texts) == 0 {
		t.Fatalf("%d files, error %v", len(texts), err)
	}
	return texts
}

func isMarkdown(path string) bool { return filepath.Ext(path) == ".md" }

// isText reports whether a file is written for people, or has comments for them.
func isText(path string) bool {
	name := filepath.Base(path)
	return slices.Contains([]string{".md", ".8", ".go", ".sh", ".txt", ".yml", ".toml", ".mod"}, filepath.Ext(path)) || name == "Makefile" || path == ".ci/run"
}

// line returns the number of the line at an offset of a text.
func line(text string, offset int) int { return 1 + strings.Count(text[:offset], "\n") }

// each calls f for each match of a pattern with its groups.
func each(texts map[string]string, pattern string, f func(path string, line int, groups []string)) {
	expression := regexp.MustCompile(pattern)
	for path, text := range texts {
		for _, at := range expression.FindAllStringSubmatchIndex(text, -1) {
			var groups []string
			for i := 0; i < len(at); i += 2 {
				group := ""
				if at[i] >= 0 {
					group = text[at[i]:at[i+1]]
				}
				groups = append(groups, group)
			}
			f(path, line(text, at[0]), groups)
		}
	}
}

func exists(path string) bool {
	_, err := os.Stat(filepath.Join(top, path))
	return err == nil
}
