package table

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
)

// String returns the line as dmsetup table prints it: without keys, and with a
// space after the target also if it has no arguments.
func (l *Line) String() string {
	b := strconv.AppendUint(nil, l.Start, 10)
	b = append(b, ' ')
	b = strconv.AppendUint(b, l.Length, 10)
	b = append(b, ' ')
	b = append(b, l.Target.Type()...)
	b = append(b, ' ')
	return string(l.Target.arguments(b))
}

// String returns the lines of a table as dmsetup table prints them.
func (t *Table) String() string {
	var b strings.Builder
	for i := range t.Lines {
		b.WriteString(t.Lines[i].String())
		b.WriteByte('\n')
	}
	return b.String()
}

// Text returns the stack as Parse reads it: as lines if it is a table without a name, and
// otherwise in the concise format. It contains no key.
func (s *Stack) Text() string {
	if len(s.Tables) == 1 && s.Tables[0].Name == "" {
		return s.Tables[0].String()
	}
	return s.Concise()
}

// ConciseFor returns the stack in the concise format with other names for the files and disks
// outside of it, in the order of Devices. A table without a name gets the name unnamed.
func (s *Stack) ConciseFor(unnamed string, devices []string) string {
	named := &Stack{Tables: slices.Clone(s.Tables)}
	names := make(map[string]string)
	for i, device := range s.Devices() {
		names[device] = devices[i]
	}
	for i := range named.Tables {
		t := &named.Tables[i]
		t.Name = cmp.Or(t.Name, unnamed)
		t.Lines = slices.Clone(t.Lines)
		for n := range t.Lines {
			t.Lines[n].Target = renamed(t.Lines[n].Target, names)
		}
	}
	return named.Concise()
}

// renamed returns a copy of a target with other names of its devices.
func renamed(t Target, names map[string]string) Target {
	switch old := t.(type) {
	case *Linear:
		t = &Linear{old.Location}
	case *Striped:
		t = &Striped{old.Chunk, slices.Clone(old.Stripes)}
	case *Crypt:
		c := *old
		t = &c
	case *Snapshot:
		c := *old
		t = &c
	case *Verity:
		c := *old
		t = &c
	case *ErrorTarget:
		if old.Limits != nil {
			l := *old.Limits
			t = &ErrorTarget{&l}
		}
	}
	t.rename(func(device string) string { return cmp.Or(names[device], device) })
	return t
}

// Concise returns the stack in the concise format, as dmsetup table --concise
// prints it, which dmsetup create --concise takes. Tables need names.
func (s *Stack) Concise() string {
	var b strings.Builder
	for i := range s.Tables {
		t := &s.Tables[i]
		if i > 0 {
			b.WriteByte(';')
		}
		b.WriteString(Escape(t.Name))
		b.WriteByte(',')
		b.WriteString(Escape(t.UUID))
		b.WriteByte(',')
		if t.Minor != NoMinor {
			b.WriteString(strconv.Itoa(t.Minor))
		}
		if t.ReadOnly {
			b.WriteString(",ro")
		} else {
			b.WriteString(",rw")
		}
		for i := range t.Lines {
			b.WriteByte(',')
			b.WriteString(Escape(t.Lines[i].String()))
		}
	}
	return b.String()
}

var escaper = strings.NewReplacer(`\`, `\\`, ",", `\,`, ";", `\;`)

// Escape returns a text as a part of one field of the concise format.
func Escape(text string) string { return escaper.Replace(text) }
