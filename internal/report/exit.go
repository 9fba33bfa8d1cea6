package report

import (
	"errors"
	"io"

	"github.com/ublk-loop/ublk-loop/internal/rawname"
)

// These are the exit statuses.
const (
	ExitDone   = 0
	ExitFailed = 1
	ExitUsage  = 2
)

// ErrReported stands for errors that are already printed.
var ErrReported = errors.New("reported")

// ErrNoCommand stands for a command line without a command. The help is already printed.
var ErrNoCommand = errors.New("no command")

// ErrInterrupted is returned when the user ends an operation by a signal or a key.
var ErrInterrupted = errors.New("interrupted")

// UsageError is an error of the command line itself.
type UsageError struct {
	Err  error
	Hint string
}

// Usage returns an error of the command line, with a hint.
func Usage(err error, hint string) error { return &UsageError{err, hint} }

// Error implements error.
func (e *UsageError) Error() string { return e.Err.Error() }

// Unwrap returns the error without the hint.
func (e *UsageError) Unwrap() error { return e.Err }

// Exit prints the error that a command ends with, unless it has been printed, and
// returns the exit status.
func Exit(w io.Writer, err error) int {
	var usage *UsageError
	switch {
	case err == nil:
		return ExitDone
	case errors.Is(err, ErrReported):
	case errors.Is(err, ErrNoCommand):
		return ExitUsage
	case errors.As(err, &usage):
		Print(w, rawname.Error(usage), usage.Hint)
		return ExitUsage
	default:
		Error(w, err)
	}
	return ExitFailed
}
