package daemon

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/internal/rawname"
	"github.com/ublk-loop/ublk-loop/internal/wire"
	"github.com/ublk-loop/ublk-loop/loop"
	"github.com/ublk-loop/ublk-loop/transfer"
	"github.com/ublk-loop/ublk-loop/ublk"
)

const (
	// recoverPatience bounds the time for which a device that cannot be taken over delays
	// the start of the server.
	recoverPatience = 10 * time.Second
	// firstRetry and longestRetry bound the time between two attempts to take over a
	// device.
	firstRetry   = time.Second
	longestRetry = 30 * time.Second
)

// takeovers are the devices that this server is to take over, and has not yet.
type takeovers struct {
	mu   sync.Mutex // protects the fields below
	byID map[uint32]*takeover
}

// recoverAll takes over devices of a server that has ended. If it cannot take over a
// device, it logs the error and tries again until the server ends, without a delay for the
// others.
func (s *many) recoverAll(waiting []loop.Status) {
	tried := make(chan struct{}, len(waiting))
	for _, t := range s.beginTakeovers(waiting) {
		go s.takeOver(t, func() { tried <- struct{}{} })
	}
	due, end := s.watchdog()
	defer end()
	patience := time.After(recoverPatience)
	for range waiting {
		select {
		case <-tried:
		case <-due:
			s.alive()
		case <-patience:
			return
		}
	}
}

// beginTakeovers returns a takeover of each device. What the last server had of other
// devices is closed.
func (s *many) beginTakeovers(devices []loop.Status) []*takeover {
	s.takeovers.mu.Lock()
	defer s.takeovers.mu.Unlock()
	s.takeovers.byID = map[uint32]*takeover{}
	var list []*takeover
	for i := range devices {
		t := newTakeover(&devices[i], s.last.take(devices[i].ID))
		s.takeovers.byID[devices[i].ID] = t
		list = append(list, t)
	}
	s.last.close()
	return list
}

// takeOver tries to take over a device until it has, until that cannot be, or until the
// server ends. It calls tried after the first attempt. A device without its key waits for
// giveKey.
func (s *many) takeOver(t *takeover, tried func()) {
	told := ""
	for pause := firstRetry; ; pause = min(2*pause, longestRetry) {
		err := t.attempt(s)
		s.unrecovered.note(t.device, err)
		if err != nil && err.Error() != told {
			told = err.Error()
			s.log.of(t.device.ID).error("recover", err)
		}
		isOver := err == nil || isFinal(err)
		if isOver {
			s.endTakeover(t)
		}
		if errors.Is(err, ublk.ErrNotRecoverable) {
			s.removeEnded(t.device) // the files of the last program are closed, so that their locks go too
		}
		if tried != nil {
			tried()
			tried = nil
		}
		if isOver || needsKey(err) {
			return
		}
		select {
		case <-s.ending:
			s.endTakeover(t)
			return
		case <-time.After(pause):
		}
	}
}

// removeEnded removes a device that has lost its disk, if the program that this one has replaced served it. That
// program has not completed the removal, and those who have asked for it wait for this process.
func (s *many) removeEnded(device *loop.Status) {
	if device.PID != os.Getpid() {
		return
	}
	if err := loop.Detach(s.ctl, device.ID, loop.DetachOptions{Force: true, Tag: device.Tag}); err != nil {
		s.log.of(device.ID).error("remove", err)
	}
}

// giveKey takes over a device that waits for its key, and closes the key. It returns an error
// that wraps ENODEV if the device does not wait, EBUSY during a long attempt to take it over, and
// EKEYREJECTED or transfer.ErrKey for another key.
func (s *many) giveKey(id uint32, sequence *uint64, key *transfer.Secret) error {
	t := s.takeovers.of(id, sequence)
	if t == nil {
		key.Close()
		return fmt.Errorf("%s: it does not wait for a key: %w", ublk.BlockPath(id), unix.ENODEV)
	}
	if err := t.enter(); err != nil {
		key.Close()
		return err
	}
	if t.done {
		t.leave()
		key.Close()
		return nil
	}
	err := t.with(s, key)
	t.leave()
	if t.done || isFinal(err) {
		s.endTakeover(t)
	}
	s.unrecovered.note(t.device, err)
	return err
}

// of returns the takeover of a device, nil if there is none.
func (ts *takeovers) of(id uint32, sequence *uint64) *takeover {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	t := ts.byID[id]
	if t == nil || sequence != nil && *sequence != t.device.DiskSequence {
		return nil
	}
	return t
}

// removeWaiting removes a device that waits for its key. Its users get I/O errors. It returns
// an error that wraps ENODEV if the device does not wait, and EBUSY during a long attempt to take it over.
func (s *many) removeWaiting(id uint32, sequence *uint64) error {
	t := s.takeovers.of(id, sequence)
	if t == nil {
		return fmt.Errorf("%s: not a device of this server: %w", ublk.BlockPath(id), unix.ENODEV)
	}
	if err := t.enter(); err != nil {
		return err
	}
	opts := loop.DetachOptions{Force: true, DiskSequence: &t.device.DiskSequence, Tag: t.device.Tag}
	if t.done { // this server has it now
		t.leave()
		return s.devices.Remove(id, opts)
	}
	err := loop.Detach(s.ctl, id, opts)
	t.leave()
	if err == nil {
		s.endTakeover(t)
	}
	return err
}

func (s *many) endTakeover(t *takeover) {
	s.takeovers.mu.Lock()
	delete(s.takeovers.byID, t.device.ID)
	s.takeovers.mu.Unlock()
	t.close()
}

// openPath opens a file below the root directory that serve was started with.
func (s *many) openPath(path string) (*os.File, error) {
	return loop.OpenPathIn(s.files[rootFile], path)
}

// openCached is openPath for a file that the server can do without.
func (s *many) openCached(path string) (*os.File, error) {
	return loop.OpenCachedPathIn(s.files[rootFile], path)
}

// openTableDevice is openPath for a device of a table.
func (s *many) openTableDevice(device string) (*os.File, error) {
	return loop.OpenTableDeviceIn(s.files[rootFile], device)
}

// unrecovered has the devices that this server was to take over and could not.
type unrecovered struct {
	mu   sync.Mutex // protects byID
	byID map[uint32]failedTakeover
}

// failedTakeover is the last attempt to take over a device.
type failedTakeover struct {
	sequence uint64 // of the device's disk, which tells the device from the next one with its id
	err      error
}

// note records the result of an attempt to take over a device.
func (u *unrecovered) note(device *loop.Status, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if err == nil {
		delete(u.byID, device.ID)
		return
	}
	if u.byID == nil {
		u.byID = map[uint32]failedTakeover{}
	}
	u.byID[device.ID] = failedTakeover{device.DiskSequence, err}
}

// among returns those of the devices that still wait for a server. It leaves out a device
// that was removed, or that another process has recovered.
func (u *unrecovered) among(devices []loop.Status) []client.Unrecovered {
	u.mu.Lock()
	defer u.mu.Unlock()
	list := []client.Unrecovered{}
	for i := range devices {
		d := &devices[i]
		// Before Linux 6.16 the driver takes a device of this process for served.
		other := d.State == ublk.StateLive.String() && d.PID != os.Getpid()
		if failed, found := u.byID[d.ID]; found && failed.sequence == d.DiskSequence && !other {
			list = append(list, client.Unrecovered{
				ID: d.ID, Device: d.Device, DiskSequence: d.DiskSequence, FileDevice: d.FileDevice, FileInode: d.FileInode,
				FileIsDisk: d.FileIsDisk, Files: wire.Device(d).Files, NeedsKey: needsKey(failed.err), Error: rawname.Error(failed.err),
			})
		}
	}
	return list
}
