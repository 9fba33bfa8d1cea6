package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/ublk-loop/ublk-loop/client"
)

// requester is who wants the device that a server serves.
type requester interface {
	// Ready says that the device can be used. After an error the server
	// ends: nobody wants the device any more.
	Ready(client.Device) error
	// Failed says why there is no device.
	Failed(answer)
	// Ending says that the device is going.
	Ending()
}

// answer is what a server in the background says once, as a line of JSON: what its device
// is, or why there is none.
type answer struct {
	Device *client.Device `json:"status,omitempty"`
	Error  string         `json:"error,omitempty"`
	Hint   string         `json:"hint,omitempty"`
}

// stay is what a server hears after its answer. Without it the server ends with the
// process that started it, because the control descriptor is closed.
const stay = "stay\n"

// starter is the requester of a server in the background: the add that waits at
// the other end of a socket.
type starter struct {
	control *os.File
}

var _ requester = (*starter)(nil)

// Ready implements requester. It returns an error if add ends without telling the
// server to stay.
func (s *starter) Ready(device client.Device) error {
	if err := s.say(answer{Device: &device}); err != nil {
		return err
	}
	word := make([]byte, len(stay))
	if _, err := io.ReadFull(s.control, word); err != nil || string(word) != stay {
		return errors.New("add has ended before it could use the device")
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
