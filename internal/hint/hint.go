// Package hint has errors that their reader can do something about. What to do is
// said without the words of an interface: a setting stands in braces, and the command
// makes a flag of it, the server a field of its protocol.
package hint

import (
	"fmt"
	"regexp"
)

// Error is an error that its reader can do something about. Error leaves the hint out:
// the command prints it on a line of its own.
type Error struct {
	Err error
	// Hint says what to do. Settings stand in braces, by the names of Settings, with or
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

// setting is a setting in a hint, and its value with an equals sign before it. Other
// braces may be part of a file's name.
var setting = regexp.MustCompile(`\{(id|read_only|sizelimit|sector_size|direct_io|zero_copy|on_crash|shared|key|force)(=[^{}]*)?\}`)

// Render returns a hint in the words of an interface. A function returns what names a
// setting there; assigned is its value with an equals sign before it, or empty.
func Render(hint string, word func(name, assigned string) string) string {
	return setting.ReplaceAllStringFunc(hint, func(text string) string {
		parts := setting.FindStringSubmatch(text)
		return word(parts[1], parts[2])
	})
}

// HasSettings reports whether a hint names settings.
func HasSettings(hint string) bool { return setting.MatchString(hint) }
