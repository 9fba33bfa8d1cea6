package client

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// ErrNoServer is returned when nobody listens at a socket.
var ErrNoServer = errors.New("no server")

// ErrLost is returned for a device that has gone: it was removed, or its server has
// ended. Its number may be another device's.
var ErrLost = fmt.Errorf("the device has gone, or the server has ended: %w", unix.ENODEV)

// ServerError is a server's own error.
type ServerError struct {
	Status int // of HTTP
	ErrorReply
}

// Error implements error.
func (e *ServerError) Error() string { return e.Message }

// ErrorReply says why a request has failed.
type ErrorReply struct {
	Message string `json:"error"`
	Hint    string `json:"hint,omitempty"`
	// Template is the hint with each setting in braces, for programs that have other
	// names for settings than the protocol. It is empty if the hint names none.
	Template string `json:"hint_template,omitempty"`
}

// HasStatus reports whether an error is a server's, with a status of HTTP.
func HasStatus(err error, status int) bool {
	var refused *ServerError
	return errors.As(err, &refused) && refused.Status == status
}
