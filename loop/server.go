package loop

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/identity"
	"github.com/ublk-loop/ublk-loop/transfer"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// ServerOptions are the options of NewServer.
type ServerOptions struct {
	// Events receives the server's events; it may be nil.
	Events Events
	// StopUnused calls the function StopUnused for several devices at the same time in
	// another process, and waits for their results. It calls ended with each result when
	// the result comes, one call at a time, and returns the first error. Before Linux 7.0
	// StopUnused has to open the devices, and a server must not open its own devices. If
	// the option is nil, devices count as in use when the driver cannot tell.
	StopUnused func(ended func(TaggedID, error), devices ...TaggedID) error
	// WriteBack calls the function WriteBack in another process. If it is nil, the removal of a
	// device in use that outlives its server loses the device's dirty pages.
	WriteBack func(id uint32) error
	// Patience is the time for which Shutdown and Remove wait for a device that answers no request.
	// 0 means one minute.
	Patience time.Duration
	// Checked is called after each check whether devices with Config.Autoclear are still
	// in use; it may be nil. These checks make garbage again and again, which matters to
	// a caller that has switched Go's collector off.
	Checked func()
	// Apart returns the process that serves the requests of another device, or nil if this process
	// does. It may be nil. All devices of the server have the same process.
	Apart func() Apart
}

// Server serves any number of devices in this process.
//
//	NewServer -> Add, Recover, Remove, Release, … -> Shutdown
//
// A device ends by Remove or Shutdown, by Detach in another process, or when it fails. A
// device with Config.Autoclear also ends when it is no longer in use. Methods are safe
// for concurrent use.
type Server struct {
	ctl  *ublk.Control
	opts ServerOptions
	reap *reaper
	// threads serves the devices' queues.
	threads *threads

	mu      sync.Mutex // protects the fields below
	devices map[uint32]*served
	closed  bool
	coming  sync.WaitGroup // devices that are being made or taken over; closed prevents new ones
}

// served is a device of a Server.
type served struct {
	dev  *Device
	gone chan struct{} // closed when the device is completely gone
	err  error         // result of the device; valid after gone
	// sequence is Status.DiskSequence, which tells the device from the next one with its id.
	sequence uint64

	// lifetimes is held by Keep and Clear, of which the last one counts. It is taken before
	// the lock of the state.
	lifetimes sync.Mutex

	// Server.mu protects these fields.
	files    []identity.File // its files and disks
	lifetime lifetime
	keeping  int    // calls of Keep that have not ended
	checks   checks // while it is released
	stops    int    // stops without the lock of its state that are under way or have stopped it
}

// NewServer returns a server without devices. It uses ctl, which the caller must close
// after Shutdown.
func NewServer(ctl *ublk.Control, opts ServerOptions) *Server {
	if opts.Events == nil {
		opts.Events = noEvents{}
	}
	if opts.StopUnused == nil {
		opts.StopUnused = countAsUsed
	}
	if opts.Patience == 0 {
		opts.Patience = time.Minute
	}
	if opts.Checked == nil {
		opts.Checked = func() {}
	}
	if opts.Apart == nil {
		opts.Apart = func() Apart { return nil }
	}
	s := &Server{ctl: ctl, opts: opts, devices: map[uint32]*served{}}
	s.threads, s.reap = newThreads(opts.Events.Failed, s.serves), newReaper(s)
	return s
}

// Add makes a device of a file, as Attach does. With cfg.Autoclear the caller holds the
// device, and the device stays at least until Release. Add first waits for another device of
// the file that is being removed, for example since it was unmounted.
func (s *Server) Add(file *os.File, cfg Config) (Status, error) {
	s.awaitRemovals(file)
	return s.add(file.Name(), cfg, func() (*Device, error) { return attachOn(s.ctl, file, cfg, s.threads, s.apart(file)) })
}

// AddTable makes a device of tables, as AttachTable does. Otherwise it is like Add.
func (s *Server) AddTable(files []*os.File, cfg Config) (Status, error) {
	s.awaitRemovals(files...)
	return s.add("tables", cfg, func() (*Device, error) { return attachTableOn(s.ctl, files, cfg, s.threads, s.apart(files...)) })
}

func (s *Server) add(name string, cfg Config, attach func() (*Device, error)) (Status, error) {
	came, err := s.begin(cfg.Key)
	if err != nil {
		return Status{}, err
	}
	defer came()
	defer s.guard(name, "add")()
	dev, err := attach()
	if err != nil {
		return Status{}, err
	}
	return s.take(dev, false)
}

// begin announces a new device, and Shutdown waits until the returned function is called.
// If the server is closed, begin closes the key.
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

// take adds a device to the server.
func (s *Server) take(dev *Device, recovered bool) (Status, error) {
	status := dev.statusOfSize(dev.startStatus().Size)
	if recovered {
		status = dev.Status() // another process may have changed the size
	}
	d := &served{dev: dev, files: status.files(), lifetime: lifetimeOf(&status), sequence: status.DiskSequence, gone: make(chan struct{})}
	switch {
	case s.enter(d, status, recovered):
		return status, nil
	case recovered:
		return Status{}, ublk.ErrClosed // as after Shutdown, the device waits for the next server when the process has ended
	}
	return Status{}, errors.Join(ublk.ErrClosed, dev.Close())
}

// enter makes the server serve a device, unless the server is closed.
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

// watch owns a device, and removes it when it ends.
func (s *Server) watch(d *served, status Status) {
	for ended := false; !ended; {
		select {
		case what := <-d.dev.Warnings():
			s.opts.Events.Warned(status, what)
		case <-d.dev.Done():
			ended = true
		}
	}
	d.err = errors.Join(d.dev.Err(), d.dev.Close())
	s.drop(d, status.ID)
	s.opts.Events.Ended(status, d.err)
	close(d.gone)
}

// drop removes a device that is gone from the list. Its id may belong to another device
// by now.
func (s *Server) drop(d *served, id uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.devices[id] == d {
		delete(s.devices, id)
	}
}

// find returns a device of this server, with a sequence number unless that is nil. It
// returns an error that wraps ENODEV if the server does not have the device.
func (s *Server) find(id uint32, sequence *uint64) (*served, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.devices[id]
	if d == nil {
		return nil, fmt.Errorf("%s: not a device of this server: %w", ublk.BlockPath(id), unix.ENODEV)
	}
	if sequence != nil && d.sequence != *sequence {
		return nil, fmt.Errorf("%s: %w", ublk.BlockPath(id), errReplaced)
	}
	return d, nil
}

// Device returns a device that the server serves. It returns an error that wraps ENODEV if the
// server does not have the device.
func (s *Server) Device(id uint32) (Status, error) {
	d, err := s.find(id, nil)
	if err != nil {
		return Status{}, err
	}
	return s.status(d), nil
}

// Devices returns the devices that the server serves, by id.
func (s *Server) Devices() []Status {
	list := []Status{}
	for _, d := range s.all() {
		list = append(list, s.status(d))
	}
	return list
}

func (s *Server) status(d *served) Status {
	status := d.dev.Status()
	status.Autoclear = s.lifetime(d) != kept
	return status
}

// Len returns the number of the server's devices.
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

// Recover takes over a device that waits for a server, as the function Recover does. With
// Config.Autoclear the caller holds the device, as after Add. It returns an error that
// wraps ErrServed if this server has the device.
func (s *Server) Recover(id uint32, file *os.File, opts RecoverOptions) (Status, error) {
	opts.Apart = s.apart(append(opts.passed(), file)...)
	return s.recoverWith(id, opts, func() (*Device, error) { return recoverOn(s.ctl, id, file, opts, s.threads) })
}

// RecoverTable is Recover for a device of tables, as the function RecoverTable is. files are
// ignored if there are opts.Passed.
func (s *Server) RecoverTable(id uint32, files []*os.File, opts RecoverOptions) (Status, error) {
	opts.Apart = s.apart(append(opts.passed(), files...)...)
	return s.recoverWith(id, opts, func() (*Device, error) { return recoverTableOn(s.ctl, id, files, opts, s.threads) })
}

func (s *Server) recoverWith(id uint32, opts RecoverOptions, take func() (*Device, error)) (Status, error) {
	came, err := s.begin(opts.Key)
	if err != nil {
		return Status{}, err
	}
	defer came()
	// Without this check the recovery would wait for this process, which has the file
	// open.
	if d, err := s.find(id, nil); err == nil && !d.dev.isDone() {
		if opts.Key != nil {
			opts.Key.Close()
		}
		return Status{}, fmt.Errorf("recover %s: %w", ublk.BlockPath(id), ErrServed)
	}
	defer s.guard(ublk.BlockPath(id), "recover")()
	dev, err := take()
	if err != nil {
		return Status{}, err
	}
	return s.take(dev, true)
}
