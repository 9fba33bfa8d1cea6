package loop

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/transfer"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// ServerOptions say how a Server does what it does.
type ServerOptions struct {
	// Events is told of what happens, nil for nobody.
	Events Events
	// StopUnused calls the function of that name for devices in another
	// process, and waits for it. A server must not open its own devices, which
	// that has to before Linux 7.0. Without it (nil) devices count as in use
	// where the driver does not say otherwise.
	StopUnused func(devices ...TaggedID) error
	// Checked is called each time that the server has checked whether devices
	// with Config.Autoclear are in use still, nil for nobody. Such checks make
	// garbage without end: it is for who has turned Go's collector off.
	Checked func()
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
	lifetime lifetime
	keeping  int    // calls of Keep that have not ended
	checks   checks // while it is released
	stops    int    // stops without the lock of its state that are under way or have stopped it
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
	if opts.Checked == nil {
		opts.Checked = func() {}
	}
	s := &Server{ctl: ctl, opts: opts, threads: newThreads(opts.Events.Failed), devices: map[uint32]*served{}}
	s.reap = newReaper(s)
	return s
}

// countAsUsed is a StopUnused that cannot look.
func countAsUsed(devices ...TaggedID) error {
	return fmt.Errorf("remove %s: nobody can tell who uses it: %w", ublk.BlockPath(devices[0].ID), ErrInUse)
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
	d := &served{dev: dev, lifetime: lifetimeOf(&status), gone: make(chan struct{})}
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
		status.Autoclear = s.lifetime(d) != kept
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

// Recover takes over a device that waits for a server, as the function of that
// name does. One with Config.Autoclear has a holder then, as after Add. It
// returns an error that wraps ErrServed for one that this server has.
func (s *Server) Recover(id uint32, file *os.File, opts RecoverOptions) (Status, error) {
	came, err := s.begin(opts.Key)
	if err != nil {
		return Status{}, err
	}
	defer came()
	// The driver would have it waited for, and it is this process that has the file.
	if d, err := s.find(id); err == nil && !d.dev.isDone() {
		if opts.Key != nil {
			opts.Key.Close()
		}
		return Status{}, fmt.Errorf("recover %s: %w", ublk.BlockPath(id), ErrServed)
	}
	defer s.guard(ublk.BlockPath(id), "recover")()
	dev, err := recoverOn(s.ctl, id, file, opts, s.threads)
	if err != nil {
		return Status{}, err
	}
	return s.take(dev, true)
}
