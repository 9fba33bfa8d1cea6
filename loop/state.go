package loop

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

// stateDir holds a file N.json for each of our devices. The driver knows what
// exists; a file only says what it is for.
const stateDir = "/run/ublk-loop"

// stateVersion is the format of a state file. A file of another version is
// ignored.
const stateVersion = 1

// state is the content of a state file.
type state struct {
	Version   int    `json:"version"`
	StartTime uint64 `json:"pid_start_time"` // of Status.PID, in clock ticks since boot
	// FileBirth is when the file was made, see birthTime.
	FileBirth int64 `json:"file_birth,omitempty"`
	// KeyCheck tells the transfer's key from others, see keyCheck.
	KeyCheck string `json:"key_check,omitempty"`
	// Recovering says that Status.PID has begun to take over the device, and
	// has not come to its end.
	Recovering bool    `json:"recovering,omitempty"`
	Config     Config  `json:"config"`
	Status     *Status `json:"status"`
}

func statePath(id uint32) string {
	return filepath.Join(stateDir, strconv.FormatUint(uint64(id), 10)+".json")
}

// newStatePath is where a state is written before it takes its place, by who
// holds the stateLock.
func newStatePath(id uint32) string { return statePath(id) + ".new" }

// write puts the state in its place at once: a reader sees the old file, the
// new one or none.
func (s *state) write() error {
	if err := os.MkdirAll(stateDir, 0o700); err != nil {
		return fmt.Errorf("make state directory: %w", err)
	}
	data, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	id := s.Status.ID
	if err := os.WriteFile(newStatePath(id), append(data, '\n'), 0o600); err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	if err := os.Rename(newStatePath(id), statePath(id)); err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	return nil
}

// readState returns what a device is for, nil when nothing is known.
func readState(id uint32) (*state, error) {
	data, err := os.ReadFile(statePath(id))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read state: %w", err)
	}
	return parseState(data, id), nil
}

// parseState returns nil for a file that is not a state of device id.
func parseState(data []byte, id uint32) *state {
	var s state
	if json.Unmarshal(data, &s) != nil || s.Version != stateVersion || s.Status == nil || s.Status.ID != id {
		return nil
	}
	return &s
}

// removeState removes what is kept of a device, an unfinished write included.
func removeState(id uint32) error {
	for _, path := range []string{newStatePath(id), statePath(id)} {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove state: %w", err)
		}
	}
	return nil
}
