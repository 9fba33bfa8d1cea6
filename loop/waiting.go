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

// Waits reports whether device cfg.ID is one that Attach was asked for with the
// same file and configuration, and that waits for a server (OnCrash): Recover
// then does what Attach cannot. It is for who starts a service again.
//
// It returns false where Attach has its own answer: no such device, one that is
// served, another program's, one that nobody can recover. It returns an error
// that wraps EEXIST for one that waits and is to be something else.
func Waits(ctl *ublk.Control, file *os.File, cfg *Config) (bool, error) {
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
	found, err := identity.Of(file)
	if err != nil {
		return false, err
	}
	if !found.Is(saved.file()) && !found.HasNumbersOf(saved.file()) || !saved.isConfig(cfg) {
		err := fmt.Errorf("%s waits for a server, and was made otherwise: %w", ublk.BlockPath(*cfg.ID), unix.EEXIST)
		return false, hint.Add(err, "recover it with what it was made of, or remove it with del")
	}
	return true, nil
}

// isConfig reports whether the device was made with a configuration. What
// Attach fills in, and the key, which is compared later, count for nothing.
func (s *state) isConfig(cfg *Config) bool {
	was, is := s.Config, *cfg
	for _, c := range []*Config{&was, &is} {
		c.ID, c.Key, c.Transfer.KeyBytes = nil, nil, 0
	}
	return was == is
}

// Waiting returns our devices that wait for a server of many, in place of one
// that has ended: those that a Server is to take over by itself. It is called
// before this process serves any: one that it is said to serve was served by a
// program that has executed this one.
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
