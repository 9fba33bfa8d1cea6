package daemon

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/loop"
	"github.com/ublk-loop/ublk-loop/transfer"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// takeover is a device of another server that this server has to take over.
type takeover struct {
	device *loop.Status
	busy   chan struct{} // capacity 1; filled by a running attempt or an upgrade
	done   bool          // the device was taken over; owned as had is
	had    had           // what is left of the other server; owned by whoever has filled busy
}

func newTakeover(device *loop.Status, had had) *takeover {
	return &takeover{device: device, busy: make(chan struct{}, 1), had: had}
}

// attempt tries to take over the device, with the keys that the last server has passed.
func (t *takeover) attempt(s *many) error {
	t.busy <- struct{}{}
	defer t.leave()
	if t.done {
		return nil // another request gave the key meanwhile
	}
	if err := t.had.readKey(); err != nil {
		return fmt.Errorf("receive the key: %w", err)
	}
	key := t.had.secret
	if key != nil { // a later attempt needs it, too
		var err error
		if key, err = key.Clone(); err != nil {
			return err
		}
	}
	return t.with(s, key)
}

// with tries to take over the device with its keys, which it closes. The caller has filled busy.
func (t *takeover) with(s *many, key *transfer.Secret) error {
	status, err := t.recover(s, key)
	if err == nil || errors.Is(err, loop.ErrServed) {
		t.had.passed = nil // the device owns it
	}
	if err != nil {
		return err
	}
	t.done = true
	if t.had.holder == nil {
		s.devices.Release(status.ID, &status.DiskSequence)
		return nil
	}
	holder := *t.had.holder
	t.had.holder = nil
	return s.api.Adopt(status.ID, status.DiskSequence, holder)
}

// enter waits until no attempt is running. It returns an error that wraps EBUSY if that takes long, because the
// file or disk of the device may never answer. Otherwise the caller must call leave.
func (t *takeover) enter() error {
	select {
	case t.busy <- struct{}{}:
		return nil
	case <-time.After(freezeTimeout):
		return t.isBusy()
	}
}

func (t *takeover) leave() { <-t.busy }

func (t *takeover) isBusy() error {
	return fmt.Errorf("%s is being recovered: %w", ublk.BlockPath(t.device.ID), unix.EBUSY)
}

// close closes what is left of the other server.
func (t *takeover) close() {
	t.busy <- struct{}{}
	defer t.leave()
	t.had.close()
}

// recover takes over the device with the files that the last server has passed, or else with
// those at their paths.
func (t *takeover) recover(s *many, key *transfer.Secret) (loop.Status, error) {
	files, done, err := t.files(s)
	if err != nil {
		if key != nil {
			key.Close()
		}
		return loop.Status{}, err
	}
	defer done()
	opts := loop.RecoverOptions{Key: key, Passed: t.had.passed, DiskSequence: &t.device.DiskSequence, Tag: t.device.Tag}
	if t.device.Table != "" {
		return s.devices.RecoverTable(t.device.ID, files, opts)
	}
	return s.devices.Recover(t.device.ID, files[0], opts)
}

// files returns the device's file, or those of its tables. done closes those that it opens.
func (t *takeover) files(s *many) (files []*os.File, done func(), err error) {
	switch {
	case t.had.passed != nil:
		return []*os.File{t.had.passed[0].File}, func() {}, nil
	case t.had.path != nil:
		return []*os.File{t.had.path}, func() {}, nil
	}
	done = func() {
		for _, f := range files {
			_ = f.Close()
		}
	}
	paths := []string{t.device.File}
	if t.device.Table != "" {
		paths = nil
		for _, f := range t.device.Files {
			paths = append(paths, f.File)
		}
	}
	for _, path := range paths {
		file, err := s.openPath(path)
		if err != nil {
			done()
			return nil, nil, err
		}
		files = append(files, file)
	}
	return files, done, nil
}

// isFinal reports whether another attempt would also fail.
func isFinal(err error) bool {
	for _, final := range []error{
		unix.ENODEV, ublk.ErrClosed, ublk.ErrNotRecoverable, loop.ErrServed, loop.ErrForeign,
	} {
		if errors.Is(err, final) {
			return true
		}
	}
	return false
}

// needsKey reports whether a takeover failed because the server does not have the right key.
func needsKey(err error) bool {
	return errors.Is(err, transfer.ErrNoKey) || errors.Is(err, transfer.ErrKey) || errors.Is(err, unix.EKEYREJECTED)
}

// freeze waits until no attempt is running, and lets none begin until thaw is called. It
// returns an error that wraps EBUSY and names the device, if an attempt takes longer than
// patience. It adds to p what is left of the other server.
func (ts *takeovers) freeze(patience time.Duration, p predecessor) (thaw func(), err error) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	var held []*takeover
	thaw = func() {
		for _, t := range held {
			t.leave()
		}
	}
	over := time.After(patience)
	for id, t := range ts.byID {
		select {
		case t.busy <- struct{}{}:
			held = append(held, t)
			p[id] = t.had
		case <-over:
			thaw()
			return nil, t.isBusy()
		}
	}
	return thaw, nil
}
