package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
)

// equivalents is the list of mutants that no test can notice, with the reason of each.
type equivalents struct {
	path    string
	reasons map[string]string // by key
}

// readEquivalents reads a list: a mutant's key on a line, and its reason on indented lines below it. Lines that begin with
// # are comments.
func readEquivalents(path string) (*equivalents, error) {
	src, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	e := &equivalents{path: path, reasons: map[string]string{}}
	key := ""
	for i, line := range strings.Split(string(src), "\n") {
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

// mark tells mutants that they are listed. An entry of these packages that names none of them is an error, because the code
// that it was proved for is gone.
func (e *equivalents) mark(all []*mutant, packages []*pkg) error {
	found := map[string]bool{}
	for _, m := range all {
		if _, m.equivalent = e.reasons[m.key()]; m.equivalent {
			found[m.key()] = true
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

// isElsewhere reports whether a key is of a package that this run does not look at, but that exists.
func isElsewhere(key string, packages []*pkg) bool {
	file, _, _ := strings.Cut(key, " ")
	here := slices.ContainsFunc(packages, func(p *pkg) bool { return p.sources[file] != nil })
	_, err := os.Stat(file)
	return !here && err == nil
}
