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
//	         └─────> leased ──> Release ──> released ──> nobody uses it ──> gone
//	leased, released ──> Keep ──> kept
//	kept, leased, released ──> Remove, Shutdown, its own end ──> gone
//
// Keep takes time: it waits for checks that have begun, and writes the state. Until
// Keep ends, the lifetime is what it was, Release may change it, and the reaper leaves
// the device alone (served.keeping). A Keep that fails changes nothing.
//
// A goroutine that stops a device or writes its state holds the lock of its state,
// with one exception: a stop that the driver does not answer within slowAfter goes on
// without the lock (served.stops), and Keep comes too late for it. The order of locks
// is reaper.asking, the lock of a state, Server.mu.
type lifetime uint8

const (
	kept     lifetime = iota // until it is removed
	leased                   // Config.Autoclear: until its holder releases it
	released                 // Config.Autoclear: until nobody uses it
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

// Release tells the server that the holder of a device with Config.Autoclear is gone.
// The server removes the device as soon as nobody uses it. The driver reports no last
// close, so the server checks: at once at first, and in the end twice a second.
func (s *Server) Release(id uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.devices[id]
	if d == nil || d.lifetime != leased {
		return
	}
	d.lifetime = released
	if d.isReaped() {
		s.reap.schedule(d)
	}
}

// Keep makes a device with Config.Autoclear one without: it stays until it is removed,
// even after Release. Keep returns an error that wraps ENODEV for a device that the
// server does not have, or that is being removed.
func (s *Server) Keep(id uint32) error {
	d, err := s.find(id)
	if err != nil {
		return err
	}
	if s.beginKeep(d) == released {
		s.reap.settle()
	}
	err = d.dev.keep()
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

// endKeep ends what beginKeep began.
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

// keep writes to the state that the device stays when nobody uses it. It returns an
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
