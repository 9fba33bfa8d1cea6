package loop

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/loop/internal/statefile"
	"github.com/ublk-loop/ublk-loop/transfer"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// Events are told what becomes of a Server's devices. They are called by
// several goroutines, and must not call the Server.
type Events interface {
	// Serving: the device can be used; recovered says that it was before.
	Serving(s Status, recovered bool)
	// Ended: the device is served no more. err says what went wrong, nil for an
	// orderly end.
	Ended(s Status, err error)
	// Slow: what is done to a device has taken ten seconds, and goes on.
	Slow(device, what string)
	// Failed: a thread of several devices has. They hang until this process
	// ends, which it should at once.
	Failed(err error)
}

// ServerOptions say how a Server does what it does.
type ServerOptions struct {
	// Events is told of what happens, nil for nobody.
	Events Events
	// StopUnused calls the function of that name for devices in another
	// process, and waits for it. A server must not open its own devices, which
	// that has to before Linux 7.0. Without it (nil) devices count as in use
	// where the driver does not say otherwise.
	StopUnused func(devices ...TaggedID) error
	// Looked is called each time that the server has looked whether devices
	// with Config.Autoclear are in use still, nil for nobody. Such looks make
	// garbage without end: it is for who has turned Go's collector off.
	Looked func()
}

// Server serves any number of devices in this process.
//
//	NewServer -> Add, Recover, Remove, Release, … -> Shutdown
//
// A device ends by Remove or Shutdown, by the hand of another process (Detach),
// or when it fails; one with Config.Autoclear also when nobody uses it. Methods
// may be called by several goroutines.
type Server struct {
	ctl  *ublk.Control
	opts ServerOptions
	reap *reaper
	// threads serve the devices' queues.
	threads *threads

	mu      sync.Mutex // protects what is below
	devices map[uint32]*served
	closed  bool
	coming  sync.WaitGroup // devices that are being made or taken over; none is added once closed is set
}

// served is a device that a Server has.
type served struct {
	dev  *Device
	gone chan struct{} // closed when nothing of it is left
	err  error         // why it ended; read after gone

	// Protected by Server.mu.
	autoclear bool // it goes when nobody uses it
	stops     int  // how many are at stopping it, or have, without the lock of its state
}

// NewServer returns a server without devices. It uses ctl, which the caller
// closes after Shutdown.
func NewServer(ctl *ublk.Control, opts ServerOptions) *Server {
	if opts.Events == nil {
		opts.Events = noEvents{}
	}
	if opts.StopUnused == nil {
		opts.StopUnused = countAsUsed
	}
	if opts.Looked == nil {
		opts.Looked = func() {}
	}
	s := &Server{ctl: ctl, opts: opts, threads: newThreads(opts.Events.Failed), devices: map[uint32]*served{}}
	s.reap = newReaper(s)
	return s
}

type noEvents struct{}

func (noEvents) Serving(Status, bool) {}
func (noEvents) Ended(Status, error)  {}
func (noEvents) Slow(_, _ string)     {}
func (noEvents) Failed(error)         {}

// countAsUsed is a StopUnused that cannot look.
func countAsUsed(devices ...TaggedID) error {
	return fmt.Errorf("remove %s: nobody can tell who uses it: %w", ublk.BlockPath(devices[0].ID), ErrInUse)
}

// slowAfter is how long something may take before somebody is told.
const slowAfter = 10 * time.Second

// guard tells of what has not ended, by a call of what it returns, in time.
func (s *Server) guard(device, what string) (done func()) {
	timer := time.AfterFunc(slowAfter, func() { s.opts.Events.Slow(device, what) })
	return func() { timer.Stop() }
}

// Add makes a device of a file, as Attach does. One with cfg.Autoclear has a
// holder, the caller, and stays until Release, however long nobody uses it.
func (s *Server) Add(file *os.File, cfg Config) (Status, error) {
	came, err := s.begin(cfg.Key)
	if err != nil {
		return Status{}, err
	}
	defer came()
	defer s.guard(file.Name(), "add")()
	dev, err := attachOn(s.ctl, file, cfg, s.threads)
	if err != nil {
		return Status{}, err
	}
	return s.take(dev, false)
}

// begin announces a device: Shutdown waits until the returned function is called.
// Without it the key is closed.
func (s *Server) begin(key *transfer.Secret) (came func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		if key != nil {
			key.Close()
		}
		return nil, ublk.ErrClosed
	}
	s.coming.Add(1)
	return s.coming.Done, nil
}

// take keeps a device from now on.
func (s *Server) take(dev *Device, recovered bool) (Status, error) {
	status := dev.Status()
	d := &served{dev: dev, autoclear: status.Autoclear, gone: make(chan struct{})}
	switch {
	case s.enter(d, status, recovered):
		return status, nil
	case recovered:
		return Status{}, ublk.ErrClosed // as after Shutdown: it waits for another once the process has ended
	}
	return Status{}, errors.Join(ublk.ErrClosed, dev.Close())
}

// enter has a device served, unless the server is closed.
func (s *Server) enter(d *served, status Status, recovered bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.devices[status.ID] = d
	s.opts.Events.Serving(status, recovered)
	go s.watch(d, status)
	return true
}

// watch owns a device: it removes what is left of it when it ends.
func (s *Server) watch(d *served, status Status) {
	<-d.dev.Done()
	d.err = errors.Join(d.dev.Err(), d.dev.Close())
	s.drop(d, status.ID)
	s.opts.Events.Ended(status, d.err)
	close(d.gone)
}

// drop forgets a device that is gone. Its id may be that of another by now.
func (s *Server) drop(d *served, id uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.devices[id] == d {
		delete(s.devices, id)
	}
}

// find returns a device of this server. It returns an error that wraps ENODEV
// where it has none with that id.
func (s *Server) find(id uint32) (*served, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.devices[id]
	if d == nil {
		return nil, fmt.Errorf("%s: not a device of this server: %w", ublk.BlockPath(id), unix.ENODEV)
	}
	return d, nil
}

// Devices returns what the server serves, by id.
func (s *Server) Devices() []Status {
	list := []Status{}
	for _, d := range s.all() {
		status := d.dev.Status()
		status.Autoclear = s.isAutoclear(d)
		list = append(list, status)
	}
	return list
}

// Len returns how many devices the server has.
func (s *Server) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.devices)
}

// all returns the devices by id.
func (s *Server) all() []*served {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]*served, 0, len(s.devices))
	for _, d := range s.devices {
		list = append(list, d)
	}
	slices.SortFunc(list, func(a, b *served) int { return int(a.dev.ID()) - int(b.dev.ID()) })
	return list
}

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

// Release tells that the holder of a device with Config.Autoclear is gone. The
// device is removed as soon as nobody uses it: which is to say, since the
// driver tells nobody of a last close, that this is looked for, at once at
// first, and in the end twice a second.
func (s *Server) Release(id uint32) {
	s.mu.Lock()
	d := s.devices[id]
	released := d != nil && d.autoclear
	s.mu.Unlock()
	if released {
		s.reap.add(d)
	}
}

// Keep makes a device with Config.Autoclear one without: it then stays until it
// is removed, also after its Release. It returns an error that wraps ENODEV for
// one that is not the server's, or is about to be no more.
func (s *Server) Keep(id uint32) error {
	d, err := s.find(id)
	if err != nil {
		return err
	}
	// Before the lock of the state, under which this is asked for.
	was := s.setAutoclear(d, false)
	held := s.reap.settle(d)
	err = d.dev.keep()
	if err == nil && s.isStopping(d) {
		err = fmt.Errorf("keep %s: it is being removed: %w", d.dev.Path(), unix.ENODEV)
	}
	if err != nil && was {
		s.setAutoclear(d, true)
		if held {
			s.reap.add(d)
		}
	}
	return err
}

func (s *Server) isAutoclear(d *served) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return d.autoclear
}

// setAutoclear returns what it was.
func (s *Server) setAutoclear(d *served, autoclear bool) (was bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	was, d.autoclear = d.autoclear, autoclear
	return was
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

// Recover takes over a device that waits for a server, as the function of that
// name does. One with Config.Autoclear has a holder then, as after Add. It
// returns an error that wraps ErrServed for one that this server has.
func (s *Server) Recover(id uint32, file *os.File, key *transfer.Secret) (Status, error) {
	came, err := s.begin(key)
	if err != nil {
		return Status{}, err
	}
	defer came()
	// The driver would have it waited for, and it is this process that has the file.
	if d, err := s.find(id); err == nil && !d.dev.isDone() {
		if key != nil {
			key.Close()
		}
		return Status{}, fmt.Errorf("recover %s: %w", ublk.BlockPath(id), ErrServed)
	}
	defer s.guard(ublk.BlockPath(id), "recover")()
	dev, err := recoverOn(s.ctl, id, file, RecoverOptions{Key: key}, s.threads)
	if err != nil {
		return Status{}, err
	}
	return s.take(dev, true)
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

// close has what would add or remove devices end.
func (s *Server) close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.reap.close()
}
