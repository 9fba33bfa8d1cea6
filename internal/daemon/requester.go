package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/internal/rawname"
	"github.com/ublk-loop/ublk-loop/internal/report"
)

// requester represents the user or program that wants the server's device.
type requester interface {
	// Ready reports that the device can be used, and which process serves its requests (0 for the
	// server). If it returns an error, the server ends, because the device is no longer wanted.
	Ready(device client.Device, apart int) error
	// Failed reports why there is no device.
	Failed(answer)
	// Ending reports that the device is about to go.
	Ending()
}

// answer is the one message of a server in the background, a line of JSON: its device, or
// an error.
type answer struct {
	Device *client.Device `json:"status,omitempty"`
	Apart  int            `json:"apart,omitempty"` // the process that serves the requests, 0 for the server
	Error  string         `json:"error,omitempty"`
	Hint   string         `json:"hint,omitempty"`
	Errno  int            `json:"errno,omitempty"` // of the error, 0 for none
}

// failure returns the answer for an error.
func failure(err error) answer {
	a := answer{Error: rawname.Error(err), Hint: rawname.Text(report.Hint(err))}
	var errno unix.Errno
	switch {
	case errors.As(err, &errno):
		a.Errno = int(errno)
	case errors.Is(err, errors.ErrUnsupported): // unlike an errno, it would be lost
		a.Errno = int(unix.EOPNOTSUPP)
	}
	return a
}

// err returns the error of an answer without a device.
func (a *answer) err() error {
	err := error(&answeredError{a.Error, unix.Errno(a.Errno)})
	return &hint.Error{Err: err, Hint: a.Hint}
}

// answeredError is an error of another process.
type answeredError struct {
	text  string
	errno unix.Errno // 0 for none
}

// Error implements error.
func (e *answeredError) Error() string { return e.text }

// Unwrap returns the errno, or nil.
func (e *answeredError) Unwrap() error {
	if e.errno == 0 {
		return nil
	}
	return e.errno
}

// stay tells the server to outlive its starter. Without it the server ends when the
// process that started it closes the control descriptor.
const stay = "stay\n"

// starter is the requester of a server in the background: the add at the other end of
// control.
type starter struct {
	control *os.File
}

var _ requester = (*starter)(nil)

// Ready implements requester. It returns an error if add ends without telling the
// server to stay.
func (s *starter) Ready(device client.Device, apart int) error {
	if err := s.say(answer{Device: &device, Apart: apart}); err != nil {
		return err
	}
	word := make([]byte, len(stay))
	if _, err := io.ReadFull(s.control, word); err != nil || string(word) != stay {
		return errors.New("add ended before it could use the device")
	}
	return s.control.Close()
}

// Failed implements requester.
func (s *starter) Failed(a answer) { _ = s.say(a) }

// Ending implements requester.
func (s *starter) Ending() {}

func (s *starter) say(a answer) error {
	if err := json.NewEncoder(s.control).Encode(a); err != nil {
		return fmt.Errorf("answer to add: %w", err)
	}
	return nil
}
