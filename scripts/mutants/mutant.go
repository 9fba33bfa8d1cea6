package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
)

// mutant is one small fault: it replaces some bytes of a file.
type mutant struct {
	pkg        *pkg
	file       string // path relative to the module
	function   string // Name, T.Name or (*T).Name
	operator   string // kind of fault
	before     string // the expression or statement that changes, in one line
	after      string // the same with the fault
	nth        int    // counts mutants with equal text in one function: 1, 2, …
	line, col  int
	start, end int        // the bytes that text replaces
	text       string     //
	equivalent bool       // it is in the list of mutants that no test can detect
	covered    []coverage // the tests that execute the line
	verbose    bool       // print the output of its tests
}

// key identifies a mutant by its file, function and text. It contains no line number, so
// that it stays the same when code moves.
func (m *mutant) key() string {
	key := fmt.Sprintf("%s %s %s: %s -> %s", m.file, m.function, m.operator, m.before, m.after)
	if m.nth > 1 {
		key += fmt.Sprintf(" (%d)", m.nth)
	}
	return key
}

// id is a short form of the key, for file names and the command line.
func (m *mutant) id() string {
	sum := sha256.Sum256([]byte(m.key()))
	return hex.EncodeToString(sum[:6])
}

// source returns the contents of the file with the fault.
func (m *mutant) source() []byte {
	src := m.pkg.sources[m.file]
	return slices.Concat(src[:m.start], []byte(m.text), src[m.end:])
}

// describe returns the place of a mutant and the change, as a text.
func (m *mutant) describe() string {
	return fmt.Sprintf("%s:%d: %s, in %s, mutant %s\n%s", m.file, m.line, m.operator, m.function, m.id(), m.diff())
}

// diff returns the changed lines before and after the change.
func (m *mutant) diff() string {
	src := string(m.pkg.sources[m.file])
	from := strings.LastIndexByte(src[:m.start], '\n') + 1
	to := len(src)
	if i := strings.IndexByte(src[m.end:], '\n'); i >= 0 {
		to = m.end + i
	}
	return marked("-", src[from:to]) + marked("+", src[from:m.start]+m.text+src[m.end:to])
}

func marked(mark, lines string) string {
	if strings.TrimSpace(lines) == "" {
		return ""
	}
	return "  " + mark + strings.ReplaceAll(lines, "\n", "\n  "+mark) + "\n"
}

// draw returns up to number mutants that compile, in the order of a hash of seed and key.
// A change of the source that adds or removes mutants does not change the order of the
// others.
func draw(mutants []*mutant, seed string, number int) []*mutant {
	rank := map[*mutant]string{}
	for _, m := range mutants {
		sum := sha256.Sum256([]byte(seed + "\n" + m.key()))
		rank[m] = string(sum[:])
	}
	ordered := slices.Clone(mutants)
	slices.SortFunc(ordered, func(a, b *mutant) int { return strings.Compare(rank[a], rank[b]) })
	var drawn []*mutant
	for _, m := range ordered {
		if len(drawn) == number {
			break
		}
		if m.compiles() {
			drawn = append(drawn, m)
		}
	}
	return drawn
}
