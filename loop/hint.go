package loop

import "fmt"

// HintError is an error that its reader can do something about. Error leaves
// the hint out: the command prints it on a line of its own.
type HintError struct {
	Err  error
	Hint string // what to do, in the words of the command line
}

// Error returns the error without the hint.
func (e *HintError) Error() string { return e.Err.Error() }

// Unwrap returns the error that the hint is for.
func (e *HintError) Unwrap() error { return e.Err }

// hint adds a hint to an error, nothing to nil.
func hint(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return &HintError{Err: err, Hint: fmt.Sprintf(format, args...)}
}
