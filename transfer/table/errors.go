package table

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"syscall"
)

// Errors that Parse wraps, besides those of transfer.NewSecret. Each is also an errno:
// the errno that the kernel returns, if the kernel refuses the same table.
var (
	// ErrSyntax is returned for text that is not a table: a line without start, length
	// and target, or a table without its five fields.
	ErrSyntax = invalid("wrong syntax")
	// ErrInvalid is returned for a wrong number of arguments, a wrong
	// argument, or lines that don't adjoin.
	ErrInvalid = invalid("invalid")
	// ErrUnsupported is returned for a feature that device mapper has and this package
	// lacks, such as another cipher.
	ErrUnsupported = errors.ErrUnsupported
	// ErrLimit is returned for text, stacks and tables beyond the limits.
	ErrLimit = errors.New("limit exceeded")
	// ErrKeyInText is returned for a key in hexadecimal digits, unless
	// Options.KeysInText is set.
	ErrKeyInText = errors.New("key in the text of a table")
)

// invalidError is an error that is also EINVAL.
type invalidError struct{ text string }

func invalid(text string) error { return &invalidError{text} }

func (e *invalidError) Error() string { return e.text }

func (e *invalidError) Is(target error) bool { return target == syscall.EINVAL }

// StackError says which part of a stack is wrong.
type StackError struct {
	Table    string // name of the table; empty for a table without a name
	Line     int    // number of the line in its table, from 1; 0 for the whole table
	Target   string // type of the line's target; may be empty
	Argument string // what the argument is, with its text unless it is secret; may be empty
	Err      error  // the cause
}

// Error returns one line.
func (e *StackError) Error() string {
	var parts []string
	if e.Table != "" {
		parts = append(parts, "table "+printable(e.Table))
	}
	if e.Line != 0 {
		parts = append(parts, fmt.Sprintf("line %d", e.Line))
	}
	for _, s := range []string{e.Target, e.Argument} {
		if s != "" {
			parts = append(parts, s)
		}
	}
	return strings.Join(append(parts, e.Err.Error()), ": ")
}

// Unwrap returns the cause.
func (e *StackError) Unwrap() error { return e.Err }

// argumentError is an error of one argument, until the line is known.
type argumentError struct {
	argument string
	err      error
}

func (e *argumentError) Error() string { return e.argument + ": " + e.err.Error() }

func (e *argumentError) Unwrap() error { return e.err }

// badArgument returns an error for an argument. The text is quoted, so it must
// not be secret.
func badArgument(what, text string, err error) error {
	return &argumentError{what + " " + quoted(text), err}
}

// inLine returns an error of a line with its place.
func inLine(table string, line int, target string, err error) error {
	e := &StackError{Table: table, Line: line, Target: printable(target), Err: err}
	var a *argumentError
	if errors.As(err, &a) {
		e.Argument, e.Err = a.argument, a.err
	}
	return e
}

// maxQuoted is the maximum length of text in an error.
const maxQuoted = 64

// maxDigits is the length of the longest word of hexadecimal digits in an
// error. A longer one may be a key at the place of another argument.
const maxDigits = 20

// quoted returns text for an error: quoted, so that it can neither write to a
// terminal nor be taken for more than one argument, and truncated.
func quoted(s string) string {
	if mayBeKey(s) {
		return "(not shown)"
	}
	if len(s) > maxQuoted {
		return strconv.QuoteToASCII(s[:maxQuoted]) + "..."
	}
	return strconv.QuoteToASCII(s)
}

// mayBeKey reports whether a word of text has many hexadecimal digits in a row. A path can have them
// behind its first slash; before it they are a key that was not separated from a path.
func mayBeKey(text string) bool {
	for word := range strings.FieldsSeq(text) {
		start, _, _ := strings.Cut(word, "/")
		run := 0
		for i := range len(start) {
			switch c := start[i]; {
			case '0' <= c && c <= '9', 'a' <= c|0x20 && c|0x20 <= 'f':
				if run++; run > maxDigits {
					return true
				}
			default:
				run = 0
			}
		}
	}
	return false
}

// printable returns text without quotes if it is harmless.
func printable(s string) string {
	if q := quoted(s); q != `"`+s+`"` || strings.Contains(s, " ") {
		return q
	}
	return s
}
