// Package hint has errors that their reader can do something about. What to do is
// said without the words of an interface: a setting stands in braces, and the command
// makes a flag of it, the server a field of its protocol.
package hint

import (
	"fmt"
	"slices"
	"strings"
)

// Error is an error that its reader can do something about. Error leaves the hint out:
// the command prints it on a line of its own.
type Error struct {
	Err error
	// Hint says what to do. Settings stand in braces, by the names of settings, with or
	// without a value: "use {sector_size=4096}, or leave {direct_io} out".
	Hint string
}

// Error returns the error without the hint.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the error that the hint is for.
func (e *Error) Unwrap() error { return e.Err }

// Add adds a hint to an error, nothing to nil.
func Add(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return &Error{Err: err, Hint: fmt.Sprintf(format, args...)}
}

// settings are the names that stand for a setting in braces. Other braces may be part of
// a file's name.
var settings = []string{
	"direct_io", "force", "id", "key", "on_crash", "read_only", "sector_size", "shared", "sizelimit", "zero_copy",
}

// Render returns a hint in the words of an interface. A function returns what names a
// setting there; assigned is its value with an equals sign before it, or empty.
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

// cutSetting returns the first setting of a hint, and what is before and after it.
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
