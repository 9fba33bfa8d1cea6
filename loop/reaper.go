package loop

import (
	"errors"
	"sync"
	"time"

	"github.com/ublk-loop/ublk-loop/loop/internal/statefile"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// longestReap is the longest time between two looks whether a device is in use
// still, of which the kernel tells nobody: neither a close nor an unmount makes
// an event that reaches a server (__bdev_release in block/bdev.c calls nothing
// of the ublk driver).
const longestReap = 500 * time.Millisecond

// reaper stops devices that nobody holds, once nobody uses them. Its goroutine
// exists while there are any.
type reaper struct {
	s    *Server
	wake chan struct{} // something is to be looked at now

	mu     sync.Mutex // protects what is below
	held   map[*served]*look
	runs   bool
	closed bool
	done   sync.WaitGroup // of the goroutine

	// asking is held while another process looks. It is taken before all other locks.
	asking sync.Mutex
}

// look is when a device is looked at.
type look struct {
	next  time.Time
	pause time.Duration // after it
}

func newReaper(s *Server) *reaper {
	return &reaper{s: s, wake: make(chan struct{}, 1), held: map[*served]*look{}}
}

// add has a device removed once nobody uses it.
func (r *reaper) add(d *served) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	r.held[d] = &look{next: time.Now(), pause: firstPause}
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

// alarm makes the goroutine look.
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

// run looks at the devices, each at its time, until there is none.
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
			r.s.opts.Looked()
		}
		timer.Reset(time.Until(next))
		select {
		case <-timer.C:
		case <-r.wake:
		}
	}
}

// due returns the devices to look at now, and when to look again. A zero time
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
			l.pause = min(2*l.pause, longestReap)
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
		// In use, or gone meanwhile: the next look tells.
		_ = r.s.opts.StopUnused(devices...)
	}
}

// TaggedID tells a device from the next one with its id.
type TaggedID struct {
	ID  uint32
	Tag uint64 // what the driver keeps with the device
}

// taggedID returns the device's.
func (d *Device) taggedID() TaggedID {
	info := d.dev.Info()
	return TaggedID{info.ID, info.Tag}
}

// StopUnused removes the disk of a device of ours that nobody uses: its server
// then removes the rest. One that is gone is no error, whatever has its id now.
// It returns an error that wraps ErrInUse for one that somebody has open for
// longer than udev looks at a disk.
func StopUnused(ctl *ublk.Control, device TaggedID) error {
	lock, err := statefile.Acquire(device.ID) // with which its server waits until it gives the id free
	if err != nil {
		return err
	}
	defer lock.Release()
	info, err := ctl.Info(device.ID)
	switch {
	case err != nil:
		return ignoreGone(err)
	case !isOurs(&info):
		return ErrForeign
	case info.Tag != device.Tag:
		return nil
	}
	return ignoreGone(stopUnused(ctl, device.ID))
}
