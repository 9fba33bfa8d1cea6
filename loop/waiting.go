package loop

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/internal/identity"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// WaitsForServer reports whether device cfg.ID waits for a server (OnCrash) and was attached with
// the same file or tables, and configuration. Recover then does what Attach cannot. It is for a
// service that is started again.
//
// It returns false if Attach has an answer of its own: the device does not exist, is
// served, belongs to another program, or cannot be recovered. It returns an error that
// wraps EEXIST if the device waits but has another file or configuration.
func WaitsForServer(ctl *ublk.Control, file *os.File, cfg *Config) (bool, error) {
	if features, err := cfg.OnCrash.features(); cfg.ID == nil || err != nil || features == 0 {
		return false, nil
	}
	saved, err := recoverable(ctl, *cfg.ID)
	switch {
	case errors.Is(err, unix.ENODEV), errors.Is(err, ErrServed), errors.Is(err, ErrForeign), errors.Is(err, ublk.ErrNotRecoverable):
		return false, nil
	case err != nil:
		return false, err
	}
	same := saved.isConfig(cfg)
	if cfg.Table == "" && same { // RecoverTable checks the files of tables
		found, err := identity.Of(file)
		if err != nil {
			return false, err
		}
		same = found.Is(saved.file()) || found.HasNumbersOf(saved.file())
	}
	if !same {
		err := fmt.Errorf("%s waits for a server, and has another file or configuration: %w", ublk.BlockPath(*cfg.ID), unix.EEXIST)
		return false, hint.Add(err, "repeat the add that made it, or remove it with del")
	}
	return true, nil
}

// isConfig reports whether the device was made with a configuration. It ignores the
// fields that Attach sets, and the key, which is checked later.
func (s *state) isConfig(cfg *Config) bool {
	was, is := s.Config, *cfg
	for _, c := range []*Config{&was, &is} {
		c.ID, c.Key, c.Transfer.KeyBytes = nil, nil, 0
	}
	return was == is
}

// Waiting returns the devices that a Server has to take over by itself: those that have
// lost a server of many devices. It must be called before this process serves a device.
// If the state names this process, the server was a program that has executed this one.
func Waiting(ctl *ublk.Control) ([]Status, error) {
	list, err := List(ctl)
	if err != nil {
		return nil, err
	}
	var waiting []Status
	for _, s := range list {
		if s.State != ublk.StateQuiesced.String() && s.PID != os.Getpid() {
			continue
		}
		if saved, err := readState(s.ID); err == nil && saved != nil && saved.ManyDevices {
			waiting = append(waiting, s)
		}
	}
	return waiting, nil
}
