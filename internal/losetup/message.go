package losetup

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/rawname"
	"github.com/ublk-loop/ublk-loop/internal/report"
)

// warn prints a message on one line.
func (c *Command) warn(format string, args ...any) {
	fmt.Fprintf(c.Err, "%s: %s\n", c.Name, report.OneLine(fmt.Sprintf(format, args...)))
}

// failure is what could not be done, in losetup's words, and why.
type failure struct {
	what string
	err  error
}

// Error implements error. As losetup it has only the errno of the cause.
func (f *failure) Error() string { return f.what + ": " + errnoText(f.err) }

// Unwrap returns the cause.
func (f *failure) Unwrap() error { return f.err }

// report prints an error, the cause that its words hide, and the hint for it.
func (c *Command) report(err error) {
	c.warn("%s", err)
	if cause := causeOf(err); cause != "" {
		fmt.Fprintf(c.Err, "cause: %s\n", report.OneLine(cause))
	}
	if hint := c.System.Hint(err); hint != "" {
		fmt.Fprintf(c.Err, "hint: %s\n", report.OneLine(hint))
	}
}

// causeOf returns the text of a failure's cause if the argument is invalid, and otherwise an
// empty text. The words for other errnos say what is wrong.
func causeOf(err error) string {
	var f *failure
	if !errors.As(err, &f) || !errors.Is(err, unix.EINVAL) {
		return ""
	}
	cause, more := strings.CutSuffix(rawname.Error(f.err), ": "+unix.EINVAL.Error())
	if !more {
		return ""
	}
	return cause
}

// errnoText returns the text of an error's errno as strerror(3) has it, or the error's own
// text if it has none.
func errnoText(err error) string {
	var errno unix.Errno
	if !errors.As(err, &errno) {
		return err.Error()
	}
	text := errno.Error()
	return strings.ToUpper(text[:1]) + text[1:]
}
