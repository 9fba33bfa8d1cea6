package loop

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/loop/internal/statefile"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// Remove removes a device, as Detach does, and returns when nothing of it is
// left. It returns an error that wraps ErrInUse for one that somebody has open,
// unless forced, and ENODEV for one that is not the server's.
func (s *Server) Remove(id uint32, opts DetachOptions) error {
	d, err := s.find(id)
	if err != nil {
		return err
	}
	if err := s.stop(d, opts.Force); err != nil {
		return err
	}
	<-d.gone
	return d.err
}

// stop removes a device's disk, by which its queues end.
func (s *Server) stop(d *served, force bool) error {
	defer s.guard(d.dev.Path(), "stop")()
	if force {
		return ignoreGone(s.stopWith(d, s.ctl.Stop))
	}
	err := s.stopWith(d, s.ctl.TryStop)
	if errors.Is(err, unix.EBUSY) || errors.Is(err, ublk.ErrNotSupported) {
		// Whether it is mounted, or only looked at, is for another process to
		// find out.
		err = s.opts.StopUnused(d.dev.taggedID())
	}
	return ignoreGone(err)
}

// stopWith stops a device by its id, which is its own until its end has the
// lock. It returns an error that wraps ENODEV for one that has ended.
func (s *Server) stopWith(d *served, stop func(id uint32) error) error {
	id := d.dev.ID()
	lock, err := statefile.Acquire(id)
	if err != nil {
		return err
	}
	if d.dev.isDone() {
		lock.Release()
		return fmt.Errorf("%s: %w", d.dev.Path(), unix.ENODEV)
	}
	stopped := make(chan error, 1) // of a goroutine that ends with the driver's answer
	go func() { stopped <- stop(id) }()
	select {
	case err = <-stopped:
		lock.Release()
	case <-time.After(slowAfter):
		// By now the driver has found the device, whose requests have no answer.
		// Who wants to change it need not wait for that.
		s.countStops(d, 1)
		lock.Release()
		if err = <-stopped; err != nil {
			s.countStops(d, -1)
		}
	}
	return err
}

// ignoreGone drops the error that says that a device is gone, as it should be.
func ignoreGone(err error) error {
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

func (s *Server) countStops(d *served, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d.stops += n
}

func (s *Server) isStopping(d *served) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return d.stops > 0
}

// Shutdown removes all devices that nobody uses, and returns when nothing of
// them is left. Those in use that outlive a server (Config.OnCrash) are served
// until the process ends, and then wait for another; those in use that do not
// are removed like those that nobody uses, so that what was written to them is
// in their files.
func (s *Server) Shutdown() error {
	s.close()
	var ends sync.WaitGroup
	devices := s.all()
	errs := make([]error, len(devices))
	for i, d := range devices {
		ends.Go(func() { errs[i] = s.end(d) })
	}
	ends.Wait()
	s.coming.Wait() // of which none becomes a device any more
	s.reap.done.Wait()
	return errors.Join(errs...)
}

// end removes a device, unless it is in use and outlives the server.
func (s *Server) end(d *served) error {
	outlives := d.dev.isRecoverable()
	err := s.stop(d, !outlives)
	if outlives && errors.Is(err, ErrInUse) {
		return nil
	}
	if err != nil {
		return err
	}
	<-d.gone
	return d.err
}

// close has what would add or remove devices end. It does not wait for the reaper,
// which may take as long as the driver does.
func (s *Server) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.reap.alarm()
}

func (s *Server) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}
