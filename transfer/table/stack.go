package table

import (
	"iter"
	"strconv"
)

// Limits. MaxText is in bytes.
const (
	MaxText   = 1 << 20
	MaxTables = 256
	MaxLines  = 16384 // in all tables of a stack
	MaxDepth  = 32    // tables between the device and a file or disk
)

// MaxSectors is the size of the largest device: 2^63-1 bytes, as for the
// kernel (dm_table_add_target in drivers/md/dm-table.c).
const MaxSectors = (1<<63 - 1) >> 9

// A Stack is a sequence of tables, each of which may use those before it. The
// last is the device. A stack that Parse has returned does not change.
type Stack struct {
	Tables   []Table
	resolver *resolver
}

// Table returns the number of the table that a device of a line is; ok is
// false for a device outside of the stack.
func (s *Stack) Table(device string) (i int, ok bool) { return s.resolver.table(device) }

// HasKeys reports whether a key was in the text.
func (s *Stack) HasKeys() bool {
	for _, c := range Targets[*Crypt](s) {
		if c.Key.Secret != nil {
			return true
		}
	}
	return false
}

// KeyBytes returns the length of all keys in bytes.
func (s *Stack) KeyBytes() (n int) {
	for _, c := range Targets[*Crypt](s) {
		n += c.Key.Bytes
	}
	return n
}

// Close wipes the keys that were in the text.
func (s *Stack) Close() {
	for _, c := range Targets[*Crypt](s) {
		c.Key.Close()
	}
}

// A Table is a named device of a stack.
type Table struct {
	Name     string // empty for the only table of dmsetup's lines
	UUID     string // may be empty
	Minor    int    // NoMinor if the text has none
	ReadOnly bool
	Lines    []Line
}

// NoMinor is the minor number of a table without one.
const NoMinor = -1

// A Line maps a range of a table. Start and Length are in sectors of 512 bytes.
type Line struct {
	Start, Length uint64
	Target        Target
}

// Sectors returns the size of a table in sectors of 512 bytes.
func (t *Table) Sectors() uint64 {
	if len(t.Lines) == 0 {
		return 0
	}
	last := &t.Lines[len(t.Lines)-1]
	return last.Start + last.Length
}

// A Target says what a range of a table is made of. It is one of *Linear,
// *Striped, *Zero, *ErrorTarget, *Crypt, *Snapshot and *Verity.
type Target interface {
	// Type returns the name of the target.
	Type() string
	// Areas returns the parts of devices that a line of length sectors maps to.
	Areas(length uint64) []Area
	// rename replaces the device of each location.
	rename(name func(device string) string)
	// arguments appends the arguments, as dmsetup prints them.
	arguments(b []byte) []byte
	// check refuses a target in a line of length sectors.
	check(length uint64) error
	// block returns the smallest logical block for the target, in bytes.
	block() uint32
}

// A Place says where a target is in the text of a stack.
type Place struct {
	table  string
	line   int // from 1
	target string
}

// Wrap returns a StackError with the place.
func (p Place) Wrap(err error) error { return inLine(p.table, p.line, p.target, err) }

// Targets returns the targets of a type with their places, in the order of the text.
func Targets[T Target](s *Stack) iter.Seq2[Place, T] {
	return func(yield func(Place, T) bool) {
		for i := range s.Tables {
			t := &s.Tables[i]
			for n, l := range t.Lines {
				target, ok := l.Target.(T)
				if ok && !yield(Place{t.Name, n + 1, target.Type()}, target) {
					return
				}
			}
		}
	}
}

// Has reports whether a line of a stack has a target of a type.
func Has[T Target](s *Stack) bool {
	for range Targets[T](s) {
		return true
	}
	return false
}

// An Area is a part of a device, in sectors of 512 bytes.
type Area struct {
	Device string // a path, or MAJOR:MINOR
	Start  uint64
	Length uint64
	// ReadOnly says that the target never writes there.
	ReadOnly bool
}

// A Location is a sector of a device.
type Location struct {
	Device string
	Start  uint64
}

func (l *Location) rename(name func(string) string) { l.Device = name(l.Device) }

func (l *Location) area(length uint64) Area {
	return Area{Device: l.Device, Start: l.Start, Length: length}
}

func (l *Location) arguments(b []byte) []byte {
	b = append(b, l.Device...)
	b = append(b, ' ')
	return strconv.AppendUint(b, l.Start, 10)
}
