package report

import (
	"fmt"
	"io"
	"strings"
)

// Error prints an error, and its hint if it has one.
func Error(w io.Writer, err error) { Print(w, err.Error(), Hint(err)) }

// Print prints the text of an error, and a hint unless it is empty.
func Print(w io.Writer, text, hint string) {
	fmt.Fprintf(w, "ublk-loop: error: %s\n", errorLine(text))
	if hint != "" {
		fmt.Fprintf(w, "hint: %s\n", OneLine(hint))
	}
}

// errorLine returns the text of an error in one line. Joined errors are separated by newlines.
func errorLine(text string) string { return OneLine(strings.ReplaceAll(text, "\n", "; ")) }

// Warnings prints warnings about an object.
func Warnings(out io.Writer, object string, warnings []string) {
	for _, w := range warnings {
		fmt.Fprintf(out, "ublk-loop: warning: %s: %s\n", OneLine(object), errorLine(w))
	}
}

// Name adds an operation and its object to an error. It does not change an error that
// names the object already.
func Name(err error, what, object string) error {
	if err == nil || strings.Contains(err.Error(), object) {
		return err
	}
	return fmt.Errorf("%s %s: %w", what, object, err)
}
