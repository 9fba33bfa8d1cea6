package table

import (
	"fmt"
	"slices"
)

// Cover returns the line with the target crypt that is the whole last table. It is nil if the last table
// is another one.
func (s *Stack) Cover() *Crypt {
	last := &s.Tables[len(s.Tables)-1]
	if len(last.Lines) != 1 {
		return nil
	}
	cover, _ := last.Lines[0].Target.(*Crypt)
	return cover
}

// Uncovered returns the tables without the one of Cover.
func (s *Stack) Uncovered() []Table {
	if s.Cover() == nil {
		return s.Tables
	}
	return s.Tables[:len(s.Tables)-1]
}

// covering returns the last table of a stack with a cover, with another table below the cover.
func (s *Stack) covering(below string) Table {
	t, cover := s.Tables[len(s.Tables)-1], *s.Cover()
	cover.Device = mapperDirectory + below
	t.Lines = []Line{{Length: s.Sectors(), Target: &cover}}
	return t
}

// OnTop returns the text of a stack with one more snapshot on top, or below the cover, with a store.
// The table that was the last one there becomes read-only. It must be a single line with a persistent
// snapshot, whose format, chunk and features the new one has.
func (s *Stack) OnTop(store string) (string, error) {
	grown := &Stack{Tables: slices.Clone(s.Uncovered())}
	last := len(grown.Tables) - 1
	if last < 0 {
		return "", fmt.Errorf("no table below the target crypt: %w", ErrUnsupported)
	}
	lines := grown.Tables[last].Lines
	below, ok := lines[0].Target.(*Snapshot)
	if len(lines) != 1 || !ok || below.Format == Transient {
		return "", fmt.Errorf("the last table is not a persistent snapshot: %w", ErrUnsupported)
	}
	origin := &grown.Tables[last]
	origin.ReadOnly = true
	if origin.Name == "" {
		origin.Name = s.freeName()
	}
	top := *below
	top.Origin, top.Store = mapperDirectory+origin.Name, store
	added := Table{Minor: NoMinor, Lines: []Line{{Length: lines[0].Length, Target: &top}}}
	added.Name = (&Stack{Tables: append(grown.Tables[:last+1:last+1], s.Tables[last+1:]...)}).freeName()
	grown.Tables = append(grown.Tables, added)
	if s.Cover() != nil {
		grown.Tables = append(grown.Tables, s.covering(added.Name))
	}
	return grown.Concise(), nil
}

// Whole returns the file or disk of a stack that is a single line: linear from the start of the file or
// disk, or crypt from any sector of it; ok is false for other stacks.
func (s *Stack) Whole() (device string, ok bool) {
	if len(s.Tables) != 1 || len(s.Tables[0].Lines) != 1 {
		return "", false
	}
	switch t := s.Tables[0].Lines[0].Target.(type) {
	case *Linear:
		return t.Device, t.Start == 0
	case *Crypt:
		return t.Device, true
	}
	return "", false
}

// AsOrigin returns the text of a persistent snapshot of the file or disk of Whole, with a store
// whose chunks have some number of sectors. With a cover, the snapshot is below it, and has all sectors
// of the file up to the end of the cover.
func (s *Stack) AsOrigin(store string, chunk uint32) (string, error) {
	device, ok := s.Whole()
	if !ok {
		return "", fmt.Errorf("the table is neither linear from the start of a file or disk nor crypt: %w", ErrUnsupported)
	}
	grown := &Stack{Tables: slices.Clone(s.Tables)}
	length := s.Sectors()
	if cover := s.Cover(); cover != nil {
		length += cover.Start
		top := &grown.Tables[0]
		if top.Name == "" {
			top.Name = "top"
		}
		below := Table{Name: grown.freeName(), Minor: NoMinor}
		grown.Tables = []Table{below, grown.covering(below.Name)}
	}
	grown.Tables[0].Lines = []Line{{
		Length: length, Target: &Snapshot{Origin: device, Store: store, Format: Persistent, Chunk: chunk},
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
