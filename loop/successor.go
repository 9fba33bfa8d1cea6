package loop

import (
	"fmt"
	"strings"

	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/transfer"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// This file prepares a server's process for being replaced by another program.

// CanEnd returns nil if all devices outlive the process unharmed: their running and new
// requests wait for the next server. It returns an error that wraps
// ublk.ErrNotRecoverable if a device does not have CrashReissue.
func (s *Server) CanEnd() error {
	var others []string
	for _, d := range s.all() {
		if d.dev.status.OnCrash != string(CrashReissue) {
			others = append(others, d.dev.Path())
		}
	}
	if len(others) == 0 {
		return nil
	}
	err := fmt.Errorf("%s: %w", strings.Join(others, ", "), ublk.ErrNotRecoverable)
	return hint.Add(err, "only devices with {on_crash=reissue} outlive their server unharmed; remove others first")
}

// PassKeys returns copies of the keys of the server's devices, by id. The caller closes them.
// A device that is about to end may be missing.
func (s *Server) PassKeys() (map[uint32]*transfer.Secret, error) {
	all := map[uint32]*transfer.Secret{}
	for _, d := range s.all() {
		key, err := d.dev.passKey()
		if err != nil {
			for _, key := range all {
				key.Close()
			}
			return nil, fmt.Errorf("%s: %w", d.dev.Path(), err)
		}
		if key != nil {
			all[d.dev.ID()] = key
		}
	}
	return all, nil
}

// passKey returns a copy of the key. It returns nil if the device has none, or is about to end.
func (d *Device) passKey() (*transfer.Secret, error) {
	if d.key == nil || !d.closing.TryLock() {
		return nil, nil
	}
	defer d.closing.Unlock()
	if d.removed {
		return nil, nil
	}
	return d.key.Clone()
}

// Pass returns the open files of the server's devices, by id, for Recover and RecoverTable in
// the program that replaces this one. The server still owns them. A device that is about to
// end may be missing.
func (s *Server) Pass() map[uint32][]Passed {
	all := map[uint32][]Passed{}
	for _, d := range s.all() {
		if passed, found := d.dev.pass(); found {
			all[d.dev.ID()] = passed
		}
	}
	return all
}

// pass returns the open files of the device, unless the device is about to end.
func (d *Device) pass() ([]Passed, bool) {
	if !d.closing.TryLock() {
		return nil, false
	}
	defer d.closing.Unlock()
	if d.stack != nil {
		return d.stack.Pass(), !d.removed
	}
	return []Passed{d.b.Pass()}, !d.removed
}
