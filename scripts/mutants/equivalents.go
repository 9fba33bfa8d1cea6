package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
)

// equivalents is the list of mutants that no test can detect, with a reason for each.
type equivalents struct {
	path    string
	reasons map[string]string // the key is mutant.key without space at its end
}

// readEquivalents reads a list. An entry is a line with a mutant's key, and indented
// lines with the reason below it. Lines that begin with # are comments.
func readEquivalents(path string) (*equivalents, error) {
	src, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	e := &equivalents{path: path, reasons: map[string]string{}}
	key := ""
	for i, line := range strings.Split(string(src), "\n") {
		line = strings.TrimRight(line, " \t") // an editor removes it too
		text := strings.TrimSpace(line)
		switch {
		case text == "" || strings.HasPrefix(line, "#"):
		case text == line:
			if _, twice := e.reasons[line]; twice {
				return nil, fmt.Errorf("%s:%d: listed twice: %s", path, i+1, line)
			}
			key = line
			e.reasons[key] = ""
		case key == "":
			return nil, fmt.Errorf("%s:%d: a reason without a mutant above it", path, i+1)
		default:
			e.reasons[key] = strings.TrimSpace(e.reasons[key] + " " + text)
		}
	}
	return e, e.checkReasons()
}

func (e *equivalents) checkReasons() error {
	for key, reason := range e.reasons {
		if reason == "" {
			return fmt.Errorf("%s: no reason for %s", e.path, key)
		}
	}
	return nil
}

// mark marks the mutants that are in the list. It returns an error if an entry for these
// packages matches no mutant, because the code that the reason applied to is gone.
func (e *equivalents) mark(all []*mutant, packages []*pkg) error {
	found := map[string]bool{}
	for _, m := range all {
		key := strings.TrimSpace(m.key())
		if _, m.equivalent = e.reasons[key]; m.equivalent {
			found[key] = true
		}
	}
	var stale []string
	for key := range e.reasons {
		if !found[key] && !isElsewhere(key, packages) {
			stale = append(stale, key)
		}
	}
	if len(stale) == 0 {
		return nil
	}
	slices.Sort(stale)
	return errors.New(e.path + ": no such mutant:\n\t" + strings.Join(stale, "\n\t"))
}

// isElsewhere reports whether the key names a file that exists, in a package that this
// run does not use.
func isElsewhere(key string, packages []*pkg) bool {
	file, _, _ := strings.Cut(key, " ")
	here := slices.ContainsFunc(packages, func(p *pkg) bool { return p.sources[file] != nil })
	_, err := os.Stat(file)
	return !here && err == nil
}
