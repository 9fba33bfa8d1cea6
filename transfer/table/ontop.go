package table

import (
	"fmt"
	"slices"
)

// OnTop returns the text of a stack with one more snapshot on top, with a store. The table that
// was the last becomes read-only. It must be a single line with a persistent snapshot, whose
// format, chunk and features the new one has.
func (s *Stack) OnTop(store string) (string, error) {
	last := len(s.Tables) - 1
	lines := s.Tables[last].Lines
	below, ok := lines[0].Target.(*Snapshot)
	if len(lines) != 1 || !ok || below.Format == Transient {
		return "", fmt.Errorf("the last table is not a persistent snapshot: %w", ErrUnsupported)
	}
	grown := &Stack{Tables: slices.Clone(s.Tables)}
	origin := &grown.Tables[last]
	origin.ReadOnly = true
	if origin.Name == "" {
		origin.Name = grown.freeName()
	}
	top := *below
	top.Origin, top.Store = mapperDirectory+origin.Name, store
	grown.Tables = append(grown.Tables, Table{
		Name: grown.freeName(), Minor: NoMinor, Lines: []Line{{Length: lines[0].Length, Target: &top}},
	})
	return grown.Concise(), nil
}

// freeName returns a name that no table of the stack has.
func (s *Stack) freeName() string {
	for i := 1; ; i++ {
		name := fmt.Sprint("layer", i)
		if !slices.ContainsFunc(s.Tables, func(t Table) bool { return t.Name == name }) {
			return name
		}
	}
}
