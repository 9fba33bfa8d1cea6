package loop

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/loop/internal/statefile"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// lifetime is how long a device stays that a Server has.
//
//	Add, Recover ──> kept <─────── Keep ───────┐
//	         └─────> leased ──> Release ──> released ──> nobody uses it ┐
//	                   └─────── Keep ──> kept                           v
//	kept, leased, released ──> Remove, Shutdown, its own end ──────> gone
//
// Keep goes to kept at once, so that the reaper stops the device no more, and back
// when it is too late. Release has no effect on a device that is kept.
//
// Who stops a device or writes its state holds the lock of its state, with one
// exception: a stop that the driver does not answer within slowAfter goes on without
// (served.stops), and Keep comes too late then. The order of locks is reaper.asking,
// the lock of a state, Server.mu; none but the last is held for a change of lifetime.
type lifetime uint8

const (
	kept     lifetime = iota // until it is removed
	leased                   // Config.Autoclear, and somebody holds it
	released                 // Config.Autoclear, and nobody does: until nobody uses it
)

// lifetimeOf returns that of a device that comes.
func lifetimeOf(s *Status) lifetime {
	if s.Autoclear {
		return leased
	}
	return kept
}

// lifetime returns a device's.
func (s *Server) lifetime(d *served) lifetime {
	s.mu.Lock()
	defer s.mu.Unlock()
	return d.lifetime
}

// Release tells that the holder of a device with Config.Autoclear is gone. The
// device is removed as soon as nobody uses it: which is to say, since the
// driver tells nobody of a last close, that this is looked for, at once at
// first, and in the end twice a second.
func (s *Server) Release(id uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d := s.devices[id]; d != nil && d.lifetime == leased {
		s.release(d)
	}
}

// release has a device removed once nobody uses it. The caller holds Server.mu.
func (s *Server) release(d *served) {
	d.lifetime = released
	s.reap.schedule(d)
}

// Keep makes a device with Config.Autoclear one without: it then stays until it
// is removed, also after its Release. It returns an error that wraps ENODEV for
// one that is not the server's, or is about to be no more.
func (s *Server) Keep(id uint32) error {
	d, err := s.find(id)
	if err != nil {
		return err
	}
	was := s.keep(d)
	if was == released {
		s.reap.settle()
	}
	err = d.dev.keep()
	if err == nil && s.isStopping(d) {
		err = fmt.Errorf("keep %s: it is being removed: %w", d.dev.Path(), unix.ENODEV)
	}
	if err != nil {
		s.unkeep(d, was)
	}
	return err
}

// keep returns what the device's lifetime was.
func (s *Server) keep(d *served) (was lifetime) {
	s.mu.Lock()
	defer s.mu.Unlock()
	was, d.lifetime = d.lifetime, kept
	return was
}

// unkeep undoes keep.
func (s *Server) unkeep(d *served, was lifetime) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d.lifetime = was
	if was == released {
		s.release(d)
	}
}

// keep takes from the device that it goes when nobody uses it. It returns an
// error that wraps ENODEV for one that has no disk any more.
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
