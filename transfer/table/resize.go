package table

import "fmt"

// Resizable returns the last line of the served table if it is linear or crypt, and not over another
// table. The stack gets another size with another length of this line. Resizable returns nil
// if there is no such line.
func (s *Stack) Resizable() *Line {
	t := &s.Tables[len(s.Tables)-1]
	last := &t.Lines[len(t.Lines)-1]
	var device string
	switch t := last.Target.(type) {
	case *Linear:
		device = t.Device
	case *Crypt:
		device = t.Device
	default:
		return nil
	}
	if _, isTable := s.Table(device); isTable {
		return nil
	}
	return last
}

// Resize gives the stack another size. It returns an error if the stack is not Resizable, or if
// nothing would be left of the last line.
func (s *Stack) Resize(sectors uint64) error {
	l := s.Resizable()
	switch {
	case l == nil:
		return fmt.Errorf("another size of tables whose last line is not linear or crypt over a file or disk: %w", ErrUnsupported)
	case sectors <= l.Start:
		return fmt.Errorf("%d sectors: the last line starts at %d: %w", sectors, l.Start, ErrInvalid)
	case sectors > MaxSectors:
		return fmt.Errorf("%d sectors: %w", sectors, ErrLimit)
	}
	if err := l.Target.check(sectors - l.Start); err != nil {
		return err
	}
	l.Length = sectors - l.Start
	return nil
}

// Sectors returns the size of the stack in sectors of 512 bytes.
func (s *Stack) Sectors() uint64 { return s.Tables[len(s.Tables)-1].Sectors() }
