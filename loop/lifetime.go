package loop

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/loop/internal/statefile"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// lifetime says how long a device of a Server stays.
//
//	Add, Recover ──> kept
//	         └─────> leased ──> Release ──> released ──> not in use ──> gone
//	leased, released ──> Keep ──> kept
//	kept ──> Clear ──> released
//	kept, leased, released ──> Remove, Shutdown, its own end ──> gone
//
// Keep takes time, because it waits for running checks and writes the state. Until Keep
// ends, the lifetime stays as it was, Release may change it, and the reaper leaves the
// device alone (served.keeping). A Keep that fails changes nothing.
//
// A goroutine that stops a device or writes its state holds the lock of its state, with
// one exception: a stop that the driver does not answer within slowAfter continues
// without the lock (served.stops), and Keep comes too late for it. The lock of a
// state is taken before Server.mu.
type lifetime uint8

const (
	kept     lifetime = iota // until it is removed
	leased                   // Config.Autoclear: until its holder releases it
	released                 // Config.Autoclear: until it is no longer in use
)

// lifetimeOf returns the lifetime of a new device.
func lifetimeOf(s *Status) lifetime {
	if s.Autoclear {
		return leased
	}
	return kept
}

// lifetime returns the lifetime of a device.
func (s *Server) lifetime(d *served) lifetime {
	s.mu.Lock()
	defer s.mu.Unlock()
	return d.lifetime
}

// Release tells the server that the holder of a device with Config.Autoclear is gone. The
// server removes the device when it is no longer in use. The driver does not report the
// last close, so that the server checks: at once, then less and less often, and in the
// end twice a second. A sequence number, Status.DiskSequence, tells the device from the
// next one with its id; nil means the device that has the id now.
func (s *Server) Release(id uint32, sequence *uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.devices[id]
	if d == nil || d.lifetime != leased || sequence != nil && d.sequence != *sequence {
		return
	}
	d.lifetime = released
	if d.isReaped() {
		s.reap.schedule(d)
	}
}

// Keep ends Config.Autoclear for a device: it stays until it is removed, even after
// Release. Keep returns an error that wraps ENODEV if the server does not have the
// device, or if the device is being removed, and EBUSY if it does not learn of that in
// time. The sequence number is as for Release.
func (s *Server) Keep(id uint32, sequence *uint64) error {
	d, err := s.find(id, sequence)
	if err != nil {
		return err
	}
	d.lifetimes.Lock()
	defer d.lifetimes.Unlock()
	if s.beginKeep(d) == released {
		err = s.reap.settle(d)
	}
	if err == nil {
		err = d.dev.setAutoclear(false)
	}
	if err == nil && s.isStopping(d) {
		err = fmt.Errorf("keep %s: it is being removed: %w", d.dev.Path(), unix.ENODEV)
	}
	s.endKeep(d, err)
	return err
}

// Clear makes the server remove a device when it is no longer in use, as if the device had
// been made with Config.Autoclear and released. A device with a holder stays until its
// Release. Clear returns an error that wraps ENODEV if the server does not have the device.
// The sequence number is as for Release.
func (s *Server) Clear(id uint32, sequence *uint64) error {
	d, err := s.find(id, sequence)
	if err != nil {
		return err
	}
	d.lifetimes.Lock()
	defer d.lifetimes.Unlock()
	if s.lifetime(d) != kept {
		return nil
	}
	if err := d.dev.setAutoclear(true); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	d.lifetime = released
	s.reap.schedule(d)
	return nil
}

// beginKeep makes the reaper leave a device alone, and returns the device's lifetime.
func (s *Server) beginKeep(d *served) lifetime {
	s.mu.Lock()
	defer s.mu.Unlock()
	d.keeping++
	return d.lifetime
}

// endKeep is the counterpart of beginKeep. err is the result of the Keep.
func (s *Server) endKeep(d *served, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d.keeping--
	if err == nil {
		d.lifetime = kept
	}
	if d.isReaped() {
		s.reap.schedule(d)
	}
}

// isReaped reports whether the reaper may stop a device.
func (s *Server) isReaped(d *served) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return d.isReaped()
}

// isReaped is [Server.isReaped] for a caller that holds Server.mu.
func (d *served) isReaped() bool { return d.lifetime == released && d.keeping == 0 }

// setAutoclear writes to the state whether the device goes when it is not in use. It
// returns an error that wraps ENODEV for a device that has lost its disk.
func (d *Device) setAutoclear(on bool) error {
	lock, err := statefile.Acquire(d.ID())
	if err != nil {
		return err
	}
	defer lock.Release()
	info, err := d.now()
	if err != nil {
		return err
	}
	if d.isDone() || info.State != ublk.StateLive {
		return fmt.Errorf("%s: it has been removed: %w", d.Path(), unix.ENODEV)
	}
	saved, err := readState(d.ID())
	if err != nil {
		return err
	}
	if saved == nil {
		return fmt.Errorf("%s: its state is gone: %w", d.Path(), unix.ENOENT)
	}
	saved.Config.Autoclear, saved.Status.Autoclear = on, on
	return saved.write()
}
