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

// Whole returns the file or disk of a stack that is a single linear line from the start of it; ok is
// false for other stacks.
func (s *Stack) Whole() (device string, ok bool) {
	if len(s.Tables) != 1 || len(s.Tables[0].Lines) != 1 {
		return "", false
	}
	linear, ok := s.Tables[0].Lines[0].Target.(*Linear)
	if !ok || linear.Start != 0 {
		return "", false
	}
	return linear.Device, true
}

// AsOrigin returns the text of a persistent snapshot of the file or disk of Whole, with a store
// whose chunks have some number of sectors.
func (s *Stack) AsOrigin(store string, chunk uint32) (string, error) {
	device, ok := s.Whole()
	if !ok {
		return "", fmt.Errorf("the table is not one linear line from the start of a file or disk: %w", ErrUnsupported)
	}
	grown := &Stack{Tables: slices.Clone(s.Tables)}
	grown.Tables[0].Lines = []Line{{
		Length: s.Sectors(), Target: &Snapshot{Origin: device, Store: store, Format: Persistent, Chunk: chunk},
	}}
	return grown.Text(), nil
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
