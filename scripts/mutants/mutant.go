package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
)

// mutant is one small fault: bytes of a file replaced by others.
type mutant struct {
	pkg        *pkg
	file       string // path from the top of the module
	function   string // Name, T.Name or (*T).Name
	operator   string // kind of fault
	before     string // the expression or statement that changes, in one line
	after      string // the same with the fault
	nth        int    // 1, 2 … among equal ones of the function
	line, col  int
	start, end int        // the bytes that text replaces
	text       string     //
	equivalent bool       // listed as one that no test can notice
	covered    []coverage // tests that run the line
	verbose    bool       // print the output of its tests
}

// key names a mutant by its content, which moves with the code: no line numbers.
func (m *mutant) key() string {
	key := fmt.Sprintf("%s %s %s: %s -> %s", m.file, m.function, m.operator, m.before, m.after)
	if m.nth > 1 {
		key += fmt.Sprintf(" (%d)", m.nth)
	}
	return key
}

// id is a short form of the key for file names and the command line.
func (m *mutant) id() string {
	sum := sha256.Sum256([]byte(m.key()))
	return hex.EncodeToString(sum[:6])
}

// source is the file with the fault.
func (m *mutant) source() []byte {
	src := m.pkg.sources[m.file]
	return slices.Concat(src[:m.start], []byte(m.text), src[m.end:])
}

// describe says where a mutant is and what it changes.
func (m *mutant) describe() string {
	return fmt.Sprintf("%s:%d: %s, in %s, mutant %s\n%s", m.file, m.line, m.operator, m.function, m.id(), m.diff())
}

// diff is the lines that change, before and after.
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

// draw returns up to number mutants that compile, in the order of a hash of seed and key. What a change of the source adds
// or removes leaves the order of the others as it is.
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
