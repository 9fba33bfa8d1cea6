package main

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

const manualFile = "../../docs/ublk-loop.8"

// readDocument returns the text of a document without the escapes of man pages.
func readDocument(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return regexp.MustCompile(`\\f[BIRP]`).ReplaceAllString(strings.ReplaceAll(string(text), `\-`, "-"), "")
}

// The commands in the documents have only flags that exist. In an example, a line of a
// session or a block, the flags also have values of the right kind.
func TestDocumentedCommands(t *testing.T) {
	files, err := filepath.Glob("../../docs/*.md")
	if err != nil || len(files) == 0 {
		t.Fatalf("%q, error %v", files, err)
	}
	found := 0
	for _, file := range append(files, "../../README.md", "../../CHANGELOG.md", "../../CONTRIBUTING.md", manualFile) {
		for _, m := range regexp.MustCompile("(?m)^(?:[#$] |    )(ublk-loop .*)$|`([a-z][a-z -]*[^`\n]*)`").FindAllStringSubmatch(readDocument(t, file), -1) {
			line := m[1] + m[2]
			known, err := parseDocumented(line)
			if known {
				found++
			}
			var unknown *pflag.NotExistError
			if err != nil && (m[1] != "" || errors.As(err, &unknown)) {
				t.Errorf("%s: %s: %v", filepath.Base(file), line, err)
			}
		}
	}
	if found < 500 {
		t.Errorf("only %d commands were found", found)
	}
}

// parseDocumented parses a command as a document has it, and reports whether it is one of
// this program. In text, its first word is often the name of a command.
func parseDocumented(line string) (known bool, _ error) {
	line, _, _ = strings.Cut(line, "     # ")
	line = regexp.MustCompile(`(?:^| )[|<>]|;| -- `).Split(line, 2)[0]
	words := strings.Fields(strings.NewReplacer(`"`, "", "…", "").Replace(line))
	isOurs := len(words) > 0 && words[0] == "ublk-loop"
	if isOurs {
		words = words[1:]
	}
	root := newRootCommand(&newBench().app)
	root.InitDefaultCompletionCmd()
	cmd, rest, err := root.Find(words)
	switch {
	case !isOurs && (err != nil || cmd == root):
		return false, nil
	case err != nil || cmd.DisableFlagParsing:
		return true, err
	}
	cmd.InitDefaultHelpFlag()
	return true, cmd.ParseFlags(rest)
}

// The synopsis of the manual has each command, with flags that exist.
func TestSynopsis(t *testing.T) {
	_, text, _ := strings.Cut(readDocument(t, manualFile), "\n.SH SYNOPSIS\n.nf\n")
	text, _, _ = strings.Cut(text, "\n.fi\n")
	missing := map[string]bool{}
	for _, cmd := range newRootCommand(&newBench().app).Commands() {
		missing[cmd.Name()] = true
	}
	for line := range strings.Lines(strings.ReplaceAll(text, "\nublk-losetup ", "\nublk-loop losetup ")) {
		words := strings.Fields(line)
		if words[0] != "ublk-loop" {
			continue // another name of the program
		}
		delete(missing, words[1])
		flags := map[string]bool{}
		cmd, _, err := newRootCommand(&newBench().app).Find(words[1:2])
		if err != nil {
			t.Errorf("%s: %v", strings.TrimSpace(line), err)
			continue
		}
		for _, flag := range commandFlags(cmd) {
			flags[flag[:min(2, strings.Index(flag, "--")+2)]] = true
			flags[flag[strings.Index(flag, "--"):]] = true
		}
		for _, flag := range regexp.MustCompile(`(?:^|[\[ |])(--?[a-z][a-z-]*)`).FindAllStringSubmatch(line, -1) {
			if !flags[flag[1]] && words[1] != "snapshotter" { // its flags are those of another program
				t.Errorf("%s: there is no %s", strings.TrimSpace(line), flag[1])
			}
		}
	}
	for name := range missing {
		t.Errorf("the synopsis lacks %s", name)
	}
}
