package losetup

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/report"
)

// warn prints a message on one line.
func (c *Command) warn(format string, args ...any) {
	fmt.Fprintf(c.Err, "%s: %s\n", c.Name, report.OneLine(fmt.Sprintf(format, args...)))
}

// failed reports what could not be done with an object, and the hint for the error.
func (c *Command) failed(object, what string, err error) {
	c.warn("%s: %s: %s", object, what, errnoText(err))
	c.hint(err)
}

// hint prints the hint for an error, if there is one.
func (c *Command) hint(err error) {
	if hint := c.System.Hint(err); hint != "" {
		fmt.Fprintf(c.Err, "hint: %s\n", report.OneLine(hint))
	}
}

// withHint reports an error with the hint for its cause.
func (c *Command) withHint(err, cause error) error {
	c.warn("%s", err)
	c.hint(cause)
	return report.ErrReported
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
