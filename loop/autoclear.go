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

// autoclearInterval is the longest time between two checks whether a device is still in
// use. The kernel tells nobody of that: neither a close nor an unmount makes an event that
// reaches a server (__bdev_release in block/bdev.c calls nothing of the ublk driver).
const autoclearInterval = 500 * time.Millisecond

// reaper stops devices that nobody holds, once nobody uses them. Its goroutine
// exists while there are any.
type reaper struct {
	s    *Server
	wake chan struct{} // something is to be checked now

	mu     sync.Mutex // protects what is below
	held   map[*served]*schedule
	runs   bool
	closed bool
	done   sync.WaitGroup // of the goroutine

	// asking is held while another process checks. It is taken before all other locks.
	asking sync.Mutex
}

// schedule is when a device is checked.
type schedule struct {
	next  time.Time
	pause time.Duration // after it
}

func newReaper(s *Server) *reaper {
	return &reaper{s: s, wake: make(chan struct{}, 1), held: map[*served]*schedule{}}
}

// add has a device removed once nobody uses it.
func (r *reaper) add(d *served) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	r.held[d] = &schedule{next: time.Now(), pause: firstPause}
	if !r.runs {
		r.runs = true
		r.done.Add(1)
		go r.run()
	}
	r.alarm()
}

// settle returns when nothing that has been found out of a device is acted upon
// any more, and reports whether it was to be removed.
func (r *reaper) settle(d *served) (held bool) {
	r.mu.Lock()
	_, held = r.held[d]
	r.mu.Unlock()
	if held {
		r.asking.Lock()
		defer r.asking.Unlock()
	}
	return held
}

// alarm makes the goroutine check at once.
func (r *reaper) alarm() {
	select {
	case r.wake <- struct{}{}:
	default: // it is about to
	}
}

// close has the goroutine end with the device that it is at. It does not wait
// for that, which may take as long as the driver does.
func (r *reaper) close() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.alarm()
}

func (r *reaper) isClosed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.closed
}

// run checks the devices, each at its time, until there is none.
func (r *reaper) run() {
	defer r.done.Done()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		due, next := r.due(time.Now())
		if next.IsZero() {
			return
		}
		if len(due) > 0 {
			r.stop(due)
			r.s.opts.Checked()
		}
		timer.Reset(time.Until(next))
		select {
		case <-timer.C:
		case <-r.wake:
		}
	}
}

// due returns the devices to check now, and when to check again. A zero time
// says that there is nothing more to do: the goroutine ends.
func (r *reaper) due(now time.Time) (due []*served, next time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for d, l := range r.held {
		if d.dev.isDone() || !r.s.isAutoclear(d) {
			delete(r.held, d)
			continue
		}
		if !l.next.After(now) {
			due = append(due, d)
			l.next = now.Add(l.pause)
			l.pause = min(2*l.pause, autoclearInterval)
		}
		if next.IsZero() || l.next.Before(next) {
			next = l.next
		}
	}
	if next.IsZero() || r.closed {
		r.runs = false
		return nil, time.Time{}
	}
	return due, next
}

// stop stops those that nobody uses. Where the driver can't tell, another
// process looks, at all of them.
func (r *reaper) stop(due []*served) {
	var unknown []*served
	for _, d := range due {
		if r.isClosed() {
			return
		}
		err := r.s.stopWith(d, func(id uint32) error { return r.tryStop(d, id) })
		if errors.Is(err, ublk.ErrNotSupported) {
			unknown = append(unknown, d)
		}
	}
	if len(unknown) > 0 && !r.isClosed() {
		r.ask(unknown)
	}
}

// tryStop stops a device that nobody uses, unless it is kept meanwhile: the
// caller has the lock under which that is made so.
func (r *reaper) tryStop(d *served, id uint32) error {
	if !r.s.isAutoclear(d) {
		return nil
	}
	return r.s.ctl.TryStop(id)
}

// ask has another process stop those that nobody uses.
func (r *reaper) ask(unknown []*served) {
	r.asking.Lock()
	defer r.asking.Unlock()
	var devices []TaggedID
	for _, d := range unknown {
		if r.s.isAutoclear(d) {
			devices = append(devices, d.dev.taggedID())
		}
	}
	if len(devices) > 0 {
		// In use, or gone meanwhile: the next check tells.
		_ = r.s.opts.StopUnused(devices...)
	}
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
