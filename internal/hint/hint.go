// Package hint has errors with a hint for the user. Hints are independent of the
// interface: they have settings in braces, from which the command makes flags and the
// server makes fields of its protocol.
package hint

import (
	"fmt"
	"slices"
	"strings"
)

// Error is an error with a hint. The error's text does not include the hint, because the
// command prints the hint on a line of its own.
type Error struct {
	Err error
	// Hint says what the user can do. Settings are in braces, with or without a value:
	// "use {sector_size=4096}, or omit {direct_io}".
	Hint string
}

// Error returns the error without the hint.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the error without the hint.
func (e *Error) Unwrap() error { return e.Err }

// Add adds a hint to an error. It returns nil for nil.
func Add(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return &Error{Err: err, Hint: fmt.Sprintf(format, args...)}
}

// settings lists the settings that can be in braces. Other braces may belong to a file
// name.
var settings = []string{
	"direct_io", "force", "header", "id", "key", "keyfile_size", "on_crash", "read_only", "sector_size", "shared", "sizelimit", "zero_copy",
}

// Render returns a hint in the terms of an interface. word returns the interface's name
// of a setting; assigned is an equals sign and the setting's value, or empty.
func Render(hint string, word func(name, assigned string) string) string {
	var b strings.Builder
	for {
		before, name, assigned, after, found := cutSetting(hint)
		b.WriteString(before)
		if !found {
			return b.String()
		}
		b.WriteString(word(name, assigned))
		hint = after
	}
}

// HasSettings reports whether a hint names settings.
func HasSettings(hint string) bool {
	_, _, _, _, found := cutSetting(hint)
	return found
}

// cutSetting returns the first setting of a hint, and the text before and after it.
func cutSetting(hint string) (before, name, assigned, after string, found bool) {
	for start := range len(hint) {
		if hint[start] != '{' {
			continue
		}
		inside, after, closed := strings.Cut(hint[start+1:], "}")
		end := strings.IndexByte(inside+"=", '=')
		if closed && slices.Contains(settings, inside[:end]) {
			return hint[:start], inside[:end], inside[end:], after, true
		}
	}
	return hint, "", "", "", false
}
