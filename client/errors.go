package client

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// ErrNoServer is returned when no server listens at the socket.
var ErrNoServer = errors.New("no server")

// ErrLost is returned when the device was removed or its server has ended. Another device
// may have its number.
var ErrLost = fmt.Errorf("the device has gone, or the server has ended: %w", unix.ENODEV)

// ServerError is an error that the server answered with.
type ServerError struct {
	Status int // HTTP status
	ErrorReply
}

// Error implements error.
func (e *ServerError) Error() string { return e.Message }

// Unwrap returns the errno that the server answered with, or nil.
func (e *ServerError) Unwrap() error {
	if e.Errno == 0 {
		return nil
	}
	return unix.Errno(e.Errno)
}

// ErrorReply says why a request failed.
type ErrorReply struct {
	Message string `json:"error"`
	Hint    string `json:"hint,omitempty"`
	// Template is the hint with each setting in braces, for programs that have other
	// names for settings than the protocol. It is empty if the hint names none.
	Template string `json:"hint_template,omitempty"`
	// Errno is the error's number in Linux, 0 if it has none.
	Errno int `json:"errno,omitempty"`
}

// HasStatus reports whether err is a ServerError with the given HTTP status.
func HasStatus(err error, status int) bool {
	var refused *ServerError
	return errors.As(err, &refused) && refused.Status == status
}
