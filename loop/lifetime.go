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
	if s.beginKeep(d) == released {
		err = s.reap.settle(d)
	}
	if err == nil {
		err = d.dev.keep()
	}
	if err == nil && s.isStopping(d) {
		err = fmt.Errorf("keep %s: it is being removed: %w", d.dev.Path(), unix.ENODEV)
	}
	s.endKeep(d, err)
	return err
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

// keep writes to the state that the device stays when it is not in use. It returns an
// error that wraps ENODEV for a device that has lost its disk.
func (d *Device) keep() error {
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
		return fmt.Errorf("keep %s: it has been removed: %w", d.Path(), unix.ENODEV)
	}
	saved, err := readState(d.ID())
	if err != nil {
		return err
	}
	if saved == nil {
		return fmt.Errorf("keep %s: its state is gone: %w", d.Path(), unix.ENOENT)
	}
	saved.Config.Autoclear, saved.Status.Autoclear = false, false
	return saved.write()
}
