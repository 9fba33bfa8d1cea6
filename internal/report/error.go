package report

import (
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/ublk-loop/ublk-loop/internal/rawname"
)

// Error prints an error, and its hint if it has one.
func Error(w io.Writer, err error) { Print(w, rawname.Error(err), Hint(err)) }

// Print prints the text of an error, as rawname.Error returns it, and a hint unless it is empty.
func Print(w io.Writer, text, hint string) {
	fmt.Fprintf(w, "ublk-loop: error: %s\n", OneLine(text))
	if hint != "" {
		fmt.Fprintf(w, "hint: %s\n", OneLine(hint))
	}
}

// Warnings prints warnings about an object.
func Warnings(out io.Writer, object string, warnings []string) {
	for _, w := range warnings {
		fmt.Fprintf(out, "ublk-loop: warning: %s: %s\n", OneLine(object), OneLine(w))
	}
}

// Name adds an operation and its object to an error. It does not change an error that
// names the object already.
func Name(err error, what, object string) error {
	if err == nil || names(err.Error(), object) {
		return err
	}
	return fmt.Errorf("%s %s: %w", what, object, err)
}

// names reports whether the text of an error names an object. A name without a slash can also be a
// word, or a part of one, so that it counts only at the start or before a colon. There it may be the
// end of an absolute path.
func names(text, object string) bool {
	for at := 0; ; at++ {
		i := strings.Index(text[at:], object)
		if i < 0 || object == "" {
			return i >= 0
		}
		at += i
		before, _ := utf8.DecodeLastRuneInString(text[:at])
		after, _ := utf8.DecodeRuneInString(text[at+len(object):])
		switch {
		case isOfName(before) || isOfName(after) || after == '/':
		case strings.HasPrefix(object, "/") && before == '/':
		case at == 0 || after == ':' || strings.Contains(object, "/"):
			return true
		}
	}
}

// isOfName reports whether a character beside a name shows that the name is longer.
func isOfName(r rune) bool {
	return unicode.IsLetter(r) || unicode.IsDigit(r) || strings.ContainsRune("._-", r)
}
