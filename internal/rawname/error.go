package rawname

import "strings"

// Error returns the text of an error for people, in UTF-8. Joined errors are separated by
// semicolons, while errors.Join separates them by newlines. So each newline that is left belongs
// to a name.
func Error(err error) string { return Text(joined(err)) }

// joined returns the text of an error, with a semicolon between joined errors.
func joined(err error) string {
	text := err.Error()
	if !strings.Contains(text, "\n") {
		return text
	}
	var b strings.Builder
	for _, part := range parts(err) {
		before, after, found := strings.Cut(text, part.Error())
		if !found {
			break
		}
		if before == "\n" {
			before = "; "
		}
		b.WriteString(before)
		b.WriteString(joined(part))
		text = after
	}
	b.WriteString(text)
	return b.String()
}

// parts returns the errors that an error wraps.
func parts(err error) []error {
	switch e := any(err).(type) {
	case interface{ Unwrap() error }:
		if part := e.Unwrap(); part != nil {
			return []error{part}
		}
	case interface{ Unwrap() []error }:
		return e.Unwrap()
	}
	return nil
}
