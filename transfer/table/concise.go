package table

import (
	"bytes"
	"fmt"
)

// The fields of a table in the concise format.
const (
	fieldName = iota
	fieldUUID
	fieldMinor
	fieldFlags
	fieldLines
	numFields
)

// splitter divides text in the concise format into fields, as _create_concise
// of dmsetup does, with its peculiarities: white space is skipped only after
// commas and semicolons, and the last character ends a table only if it is
// neither escaped nor a comma.
type splitter struct {
	text   []byte
	at     int
	fields [numFields][]byte // parts of buf
	buf    []byte            // as long as text, so that append never moves it
	start  int               // of the current field in buf
	n      int               // number of the current field
}

// concise reads a stack.
func (p *parser) concise(text []byte) error {
	s := &p.split
	s.text, s.buf = text, make([]byte, 0, len(text))
	defer clear(s.buf[:cap(s.buf)]) // it can have keys
	for {
		more, err := s.next()
		if err != nil {
			return &StackError{Table: string(s.fields[fieldName]), Err: err}
		}
		if !more {
			return nil
		}
		if len(p.stack.Tables) == MaxTables {
			return &StackError{Err: fmt.Errorf("more than %d tables: %w", MaxTables, ErrLimit)}
		}
		p.stack.Tables = append(p.stack.Tables, Table{Minor: NoMinor})
		t := &p.stack.Tables[len(p.stack.Tables)-1]
		if err := t.header(&s.fields); err != nil {
			return err
		}
		if err := p.parseLines(t, s.fields[fieldLines]); err != nil {
			return err
		}
	}
}

// next reads the fields of the next table; it returns false at the end.
func (s *splitter) next() (bool, error) {
	s.fields, s.n, s.start = [numFields][]byte{}, 0, len(s.buf)
	for s.at < len(s.text) {
		c := s.text[s.at]
		s.at++
		switch {
		case c == '\\':
			if s.at == len(s.text) {
				return false, fmt.Errorf("backslash at the end: %w", ErrSyntax)
			}
			s.buf = append(s.buf, s.text[s.at])
			s.at++
		case c == ',' && s.n == fieldLines:
			s.buf = append(s.buf, '\n')
		case c == ',':
			s.endField()
			s.n++
			s.skipBlank()
		case c == ';':
			return s.endTable()
		default:
			s.buf = append(s.buf, c)
			if s.at == len(s.text) {
				return s.endTable()
			}
		}
	}
	if s.n > 0 || len(s.buf) > s.start {
		return false, fmt.Errorf("text ends with a comma or an escaped character: %w", ErrSyntax)
	}
	return false, nil
}

func (s *splitter) endField() {
	s.fields[s.n] = s.buf[s.start:]
	s.start = len(s.buf)
}

func (s *splitter) endTable() (bool, error) {
	s.endField()
	if s.n != fieldLines {
		return false, fmt.Errorf("%d fields, not NAME,UUID,MINOR,FLAGS,LINE: %w", s.n+1, ErrSyntax)
	}
	s.skipBlank()
	return true, nil
}

func (s *splitter) skipBlank() {
	s.at = len(s.text) - len(bytes.TrimLeft(s.text[s.at:], blank))
}

// header reads the fields before the lines.
func (t *Table) header(fields *[numFields][]byte) error {
	t.Name, t.UUID = string(fields[fieldName]), string(fields[fieldUUID])
	if err := checkName(t.Name); err != nil {
		return &StackError{Argument: "name " + quoted(t.Name), Err: err}
	}
	if err := checkUUID(t.UUID); err != nil {
		return &StackError{Table: t.Name, Argument: "uuid " + quoted(t.UUID), Err: err}
	}
	if minor := string(fields[fieldMinor]); minor != "" {
		n, err := parseNumber(minor, 31)
		if err == nil && n > maxMinor {
			err = fmt.Errorf("larger than %d: %w", maxMinor, ErrInvalid)
		}
		if err != nil {
			return &StackError{Table: t.Name, Argument: "minor " + quoted(minor), Err: err}
		}
		t.Minor = int(n)
	}
	switch flags := string(fields[fieldFlags]); flags {
	case "", "rw":
	case "ro":
		t.ReadOnly = true
	default:
		return &StackError{Table: t.Name, Argument: "flags " + quoted(flags), Err: fmt.Errorf("neither rw nor ro: %w", ErrSyntax)}
	}
	return nil
}
