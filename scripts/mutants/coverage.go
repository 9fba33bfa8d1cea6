package main

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
)

// block is a part of a file that tests execute.
type block struct {
	File                                 string // path relative to the module
	StartLine, StartCol, EndLine, EndCol int
}

// readProfile reads the coverage profile of a package and returns the blocks with a count
// above zero.
func readProfile(in io.Reader, p *pkg) ([]block, error) {
	var blocks []block
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		line := lines.Text()
		if strings.HasPrefix(line, "mode:") {
			continue
		}
		name, rest, ok := strings.Cut(line, ":")
		b := block{File: path.Join(p.dir, path.Base(name))}
		var statements, count int
		_, err := fmt.Sscanf(rest, "%d.%d,%d.%d %d %d", &b.StartLine, &b.StartCol, &b.EndLine, &b.EndCol, &statements, &count)
		if !ok || err != nil {
			return nil, fmt.Errorf("line %q of a coverage profile: %w", line, err)
		}
		if count > 0 && path.Dir(name) == p.path {
			blocks = append(blocks, b)
		}
	}
	return blocks, lines.Err()
}

// covers reports whether a mutant is in the block.
func (b block) covers(m *mutant) bool {
	afterStart := m.line > b.StartLine || m.line == b.StartLine && m.col >= b.StartCol
	beforeEnd := m.line < b.EndLine || m.line == b.EndLine && m.col < b.EndCol
	return b.File == m.file && afterStart && beforeEnd
}

// coverage lists the tests of a tier that execute a mutant's line, the shortest first.
type coverage struct {
	tier  *tier
	tests []*test
}

// keepCovered returns the mutants on lines that tests execute, and sets their tests.
func keepCovered(ctx context.Context, all []*mutant, packages []*pkg, tiers []*tier) ([]*mutant, error) {
	for _, t := range tiers {
		for _, p := range packages {
			tests, err := t.cover(ctx, p)
			if err != nil {
				return nil, fmt.Errorf("coverage of %s: %w", p.dir, err)
			}
			slices.SortStableFunc(tests, func(a, b *test) int { return cmp.Compare(a.Took, b.Took) })
			for _, m := range all {
				if m.pkg != p {
					continue
				}
				if those := covering(tests, m); len(those) > 0 {
					m.covered = append(m.covered, coverage{t, those})
				}
			}
		}
	}
	return slices.DeleteFunc(slices.Clone(all), func(m *mutant) bool { return len(m.covered) == 0 }), nil
}

// covering returns the tests that execute a mutant's line.
func covering(tests []*test, m *mutant) []*test {
	var those []*test
	for _, t := range tests {
		if slices.ContainsFunc(t.Blocks, func(b block) bool { return b.covers(m) }) {
			those = append(those, t)
		}
	}
	return those
}
