package report

import (
	"fmt"
	"io"
	"strings"
)

// Error prints an error, and a hint if something can be done about it.
func Error(w io.Writer, err error) { Print(w, err.Error(), Hint(err)) }

// Print prints the text of an error, and a hint if it is not empty.
func Print(w io.Writer, text, hint string) {
	// Joined errors come as lines.
	fmt.Fprintf(w, "ublk-loop: error: %s\n", OneLine(strings.ReplaceAll(text, "\n", "; ")))
	if hint != "" {
		fmt.Fprintf(w, "hint: %s\n", OneLine(hint))
	}
}

// Warnings prints what is worth a warning about an object.
func Warnings(out io.Writer, object string, warnings []string) {
	for _, w := range warnings {
		fmt.Fprintf(out, "ublk-loop: warning: %s: %s\n", OneLine(object), w)
	}
}

// Name returns an error that says what was done to which object. An error that
// names the object stays as it is.
func Name(err error, what, object string) error {
	if err == nil || strings.Contains(err.Error(), object) {
		return err
	}
	return fmt.Errorf("%s %s: %w", what, object, err)
}
