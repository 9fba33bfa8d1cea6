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
	Version   int     `json:"version"`
	StartTime uint64  `json:"pid_start_time"` // of Status.PID, in clock ticks since boot
	Config    Config  `json:"config"`
	Status    *Status `json:"status"`
}

func statePath(id uint32) string {
	return filepath.Join(stateDir, strconv.FormatUint(uint64(id), 10)+".json")
}

// write puts the state in its place at once: a reader sees the old file, the
// new one or none.
func (s *state) write() (err error) {
	if err := os.MkdirAll(stateDir, 0o700); err != nil {
		return fmt.Errorf("make state directory: %w", err)
	}
	f, err := os.CreateTemp(stateDir, ".new-")
	if err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	defer func() {
		err = errors.Join(err, f.Close())
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	if err := json.NewEncoder(f).Encode(s); err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	if err := os.Rename(f.Name(), statePath(s.Status.ID)); err != nil {
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

func removeState(id uint32) error {
	err := os.Remove(statePath(id))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
