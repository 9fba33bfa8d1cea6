package loop

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/identity"
	"github.com/ublk-loop/ublk-loop/loop/internal/progress"
	"github.com/ublk-loop/ublk-loop/loop/serving"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// Remove removes a device, as Detach does, and returns when the device is completely
// gone. It returns an error that wraps ErrInUse if the device is open and Force is not
// set, ENODEV if the server does not have the device, serving.ErrSilent if the process of
// ServerOptions.Apart does not end the device in time, and ETIMEDOUT if the device has answered no request for
// ServerOptions.Patience. The removal continues then.
func (s *Server) Remove(id uint32, opts DetachOptions) error {
	d, err := s.find(id, opts.DiskSequence)
	if err != nil {
		return err
	}
	if err := s.patiently(d, func() error { return s.stop(d, opts.Force) }); err != nil {
		return err
	}
	return d.awaitRemoval()
}

// awaitRemoval waits until a device without a disk is completely gone. A process that serves it has
// serving.AnswerPatience for that, and may go on afterwards. The wait for the lock of the state has its own bound.
func (d *served) awaitRemoval() error {
	var late <-chan time.Time
	if d.dev.apart != nil {
		late = time.After(serving.AnswerPatience)
	}
	for {
		select {
		case <-d.gone:
			return d.err
		case <-late:
			if !d.dev.awaitsLock() {
				return fmt.Errorf("remove %s: its disk is gone, but not the rest: %w", d.dev.Path(), serving.ErrSilent)
			}
			late = time.After(serving.AnswerPatience)
		}
	}
}

// stop removes a device's disk. That ends its queues.
func (s *Server) stop(d *served, force bool) error {
	defer s.guard(d.dev.Path(), "stop")()
	if force {
		if d.dev.isRecoverable() && s.opts.WriteBack != nil {
			_ = s.opts.WriteBack(d.dev.ID()) // what cannot be written is lost, as force says
		}
		return ignoreGone(s.stopWith(d, s.ctl.Stop))
	}
	err := s.stopWith(d, s.ctl.TryStop)
	if errors.Is(err, unix.EBUSY) || errors.Is(err, ublk.ErrNotSupported) {
		// Another process has to find out whether the device is mounted or only opened by
		// udev.
		err = s.opts.StopUnused(func(TaggedID, error) {}, d.dev.taggedID())
	}
	return ignoreGone(err)
}

// countAsUsed is a StopUnused that cannot check devices.
func countAsUsed(_ func(TaggedID, error), devices ...TaggedID) error {
	return fmt.Errorf("remove %s: its users cannot be determined: %w", ublk.BlockPath(devices[0].ID), ErrInUse)
}

// stopWith stops a device by its id. The device keeps its id until its end gets the lock
// of the state. stopWith returns an error that wraps ENODEV if the device has ended.
func (s *Server) stopWith(d *served, stop func(id uint32) error) error {
	id := d.dev.ID()
	lock, err := d.dev.lockState()
	if err != nil {
		return err
	}
	if d.dev.isDone() {
		lock.Release()
		return fmt.Errorf("%s: %w", d.dev.Path(), unix.ENODEV)
	}
	stopped := make(chan error, 1) // its goroutine ends with the driver's answer
	go func() { stopped <- stop(id) }()
	select {
	case err = <-stopped:
		lock.Release()
	case <-time.After(slowAfter):
		// The driver has found the device by now, but its requests are not answered.
		// Other changes of the device need not wait for that.
		s.countStops(d, 1)
		lock.Release()
		if err = <-stopped; err != nil {
			s.countStops(d, -1)
		}
	}
	return err
}

// ignoreGone drops the error of a device that is already gone.
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

// awaitRemovals waits until devices that are being removed have closed their files, if they
// have one of these. Errors are left to the new device.
func (s *Server) awaitRemovals(files ...*os.File) {
	for _, file := range files {
		wanted, err := identity.Of(file)
		if err != nil {
			continue
		}
		for _, d := range s.endingWith(wanted) {
			if number, _ := blockOf(d.dev.ID()); d.dev.isDone() || number == "" {
				select {
				case <-d.gone:
				case <-time.After(serverTimeout):
				}
			}
		}
	}
}

// endingWith returns the devices with a file that may be about to be removed. If another
// process stops a device, sysfs shows that first, and the server learns it last.
func (s *Server) endingWith(wanted identity.File) []*served {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []*served
	for _, d := range s.devices {
		if (d.stops > 0 || d.lifetime == released || d.dev.isDone()) && slices.ContainsFunc(d.files, wanted.HasNumbersOf) {
			list = append(list, d)
		}
	}
	return list
}

// Shutdown removes all devices that are not in use, and returns when they are completely
// gone. A device in use that outlives its server (Config.OnCrash) is served until the
// process ends, and then waits for another server. Any other device in use is removed
// like an unused one, so that its written data reaches its file.
//
// Shutdown does not wait for a device that has answered no request for
// ServerOptions.Patience, nor longer for devices that are being added. It returns an error
// that wraps ETIMEDOUT and names them. They end as if the process had been killed.
func (s *Server) Shutdown() error {
	s.close()
	var ends sync.WaitGroup
	devices := s.all()
	errs := make([]error, len(devices)+1)
	for i, d := range devices {
		ends.Go(func() { errs[i] = s.endPatiently(d) })
	}
	ends.Go(func() {
		if !s.waitFor(&s.coming) { // none of them becomes a device any more
			errs[len(devices)] = fmt.Errorf("devices are still being added: %w", unix.ETIMEDOUT)
		}
	})
	ends.Go(func() { s.waitFor(&s.reap.done) }) // the error of the device says that its check hangs
	ends.Wait()
	return errors.Join(errs...)
}

// AwaitEnded waits until the devices of a process that has ended (ServerOptions.Apart) are removed, or left to
// the next server. It gives up after a time.
func (s *Server) AwaitEnded(patience time.Duration) {
	over := time.After(patience)
	for _, d := range s.all() {
		if d.dev.apart == nil {
			continue
		}
		select {
		case <-d.gone:
		case <-over:
			return
		}
	}
}

// waitFor reports whether a group ends within ServerOptions.Patience.
func (s *Server) waitFor(group *sync.WaitGroup) bool {
	ended := make(chan struct{})
	go func() { group.Wait(); close(ended) }() // ends with the group
	select {
	case <-ended:
		return true
	case <-time.After(s.opts.Patience):
		return false
	}
}

// endPatiently removes a device as end does, patiently.
func (s *Server) endPatiently(d *served) error {
	return s.patiently(d, func() error { return s.end(d) })
}

// patiently calls end, and waits for its result as long as the device answers requests, or end waits for the lock of the state,
// which has its own bound.
func (s *Server) patiently(d *served, end func() error) error {
	ended := make(chan error, 1)
	go func() { ended <- end() }() // ends with the driver's answer
	tick := time.NewTicker(s.opts.Patience / 10)
	defer tick.Stop()
	answered, last := d.dev.answered(), time.Now()
	for {
		select {
		case err := <-ended:
			return err
		case now := <-tick.C:
			if n := d.dev.answered(); n != answered || d.dev.awaitsLock() {
				answered, last = n, now
			} else if now.Sub(last) >= s.opts.Patience {
				return fmt.Errorf("remove %s: it answers no request: %w", d.dev.Path(), unix.ETIMEDOUT)
			}
		}
	}
}

// answered returns the number of requests that the device has answered. If another process
// serves it, this is the kernel's number, because a hostile process could report ever higher ones.
func (d *Device) answered() uint64 {
	if d.apart != nil {
		if n, counts := progress.Completed(filepath.Base(d.Path())); counts {
			return n
		}
	}
	var n uint64
	stats := d.dev.Stats()
	if d.apart != nil {
		stats = *d.apart.stats().Stats
	}
	for i := range stats.Ops {
		n += stats.Ops[i].Requests
	}
	return n
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
	return d.awaitRemoval()
}

// close prevents further additions, and stops the reaper. It does not wait for the
// reaper, which may wait for the driver.
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
