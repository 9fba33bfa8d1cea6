package table

import (
	"fmt"
	"strings"
	"syscall"
)

// mapperDirectory is where the nodes of named tables are.
const mapperDirectory = "/dev/mapper/"

// resolver finds the tables of a stack by their devices.
type resolver struct {
	byName  map[string]int
	byMinor map[uint32]int
	major   uint32
}

// newResolver returns EBUSY for a name, minor or UUID of two tables.
func newResolver(tables []Table, major uint32) (*resolver, error) {
	r := &resolver{make(map[string]int), make(map[uint32]int), major}
	uuids := make(map[string]bool)
	for i := range tables {
		t := &tables[i]
		_, name := r.byName[t.Name]
		_, minor := r.byMinor[uint32(t.Minor)]
		switch {
		case name:
			return nil, &StackError{Table: t.Name, Err: fmt.Errorf("second table of this name: %w", syscall.EBUSY)}
		case t.Minor != NoMinor && minor:
			return nil, &StackError{Table: t.Name, Err: fmt.Errorf("second table with minor %d: %w", t.Minor, syscall.EBUSY)}
		case t.UUID != "" && uuids[t.UUID]:
			return nil, &StackError{Table: t.Name, Err: fmt.Errorf("second table with uuid %s: %w", quoted(t.UUID), syscall.EBUSY)}
		}
		r.byName[t.Name] = i
		uuids[t.UUID] = true
		if t.Minor != NoMinor {
			r.byMinor[uint32(t.Minor)] = i
		}
	}
	return r, nil
}

// table returns the number of the table that a device is; ok is false for a
// device outside of the stack.
func (r *resolver) table(device string) (i int, ok bool) {
	if name, found := strings.CutPrefix(device, mapperDirectory); found {
		i, ok = r.byName[name]
		return i, ok && name != ""
	}
	if major, minor, isNumber := DeviceNumber(device); isNumber && major == r.major && major != 0 {
		i, ok = r.byMinor[minor]
		return i, ok
	}
	return 0, false
}

// check refuses stacks that contradict themselves: names that are not unique,
// and tables that use later ones, are too deep, write to read-only ones, or
// are not used.
func (s *Stack) check(major uint32) error {
	r, err := newResolver(s.Tables, major)
	if err != nil {
		return err
	}
	s.resolver = r
	depth, used := make([]int, len(s.Tables)), make([]bool, len(s.Tables))
	for i := range s.Tables {
		if err := s.Tables[i].checkVerity(); err != nil {
			return err
		}
		below, err := s.below(i)
		if err != nil {
			return err
		}
		for _, b := range below {
			used[b] = true
			depth[i] = max(depth[i], depth[b]+1)
		}
		if depth[i] >= MaxDepth {
			return &StackError{Table: s.Tables[i].Name, Err: fmt.Errorf("more than %d tables on top of each other: %w", MaxDepth, ErrLimit)}
		}
	}
	for i := range s.Tables[:len(s.Tables)-1] {
		if !used[i] {
			return &StackError{Table: s.Tables[i].Name, Err: fmt.Errorf("not used by a later table: %w", ErrInvalid)}
		}
	}
	return nil
}

// below returns the tables that table i uses.
func (s *Stack) below(i int) (below []int, err error) {
	t := &s.Tables[i]
	for n, l := range t.Lines {
		for _, a := range l.Target.Areas(l.Length) {
			b, ok := s.Table(a.Device)
			if !ok {
				continue
			}
			if err := s.checkReference(i, b, l.Target, a); err != nil {
				return nil, inLine(t.Name, n+1, l.Target.Type(), badArgument("device", a.Device, err))
			}
			below = append(below, b)
		}
	}
	return below, nil
}

// checkReference refuses the use of a table by a target of another. The kernel lets a
// writable table write through a read-only one.
func (s *Stack) checkReference(user, below int, target Target, a Area) error {
	switch {
	case below == user:
		return fmt.Errorf("the table itself: %w", syscall.ENOENT)
	case below > user:
		return fmt.Errorf("a later table: %w", syscall.ENOENT)
	case s.Tables[below].ReadOnly && !s.Tables[user].ReadOnly && !a.ReadOnly:
		return fmt.Errorf("read-only table below a writable one: %w", syscall.EROFS)
	}
	return s.checkStore(target, a.Device, below)
}
