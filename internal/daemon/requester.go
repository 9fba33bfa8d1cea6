package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/ublk-loop/ublk-loop/client"
)

// requester represents the user or program that wants the server's device.
type requester interface {
	// Ready reports that the device can be used. If it returns an error, the server ends,
	// because the device is no longer wanted.
	Ready(client.Device) error
	// Failed reports why there is no device.
	Failed(answer)
	// Ending reports that the device is about to go.
	Ending()
}

// answer is the one message of a server in the background, a line of JSON: its device, or
// an error.
type answer struct {
	Device *client.Device `json:"status,omitempty"`
	Error  string         `json:"error,omitempty"`
	Hint   string         `json:"hint,omitempty"`
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
func (s *starter) Ready(device client.Device) error {
	if err := s.say(answer{Device: &device}); err != nil {
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
