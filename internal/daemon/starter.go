package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/ublk-loop/ublk-loop/client"
)

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
