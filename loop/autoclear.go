package loop

import (
	"errors"
	"sync"
	"time"

	"github.com/ublk-loop/ublk-loop/ublk"
)

// autoclearInterval is the maximum time between two checks whether a device is still in
// use. The kernel does not report the end of the use: neither a close nor an unmount
// causes an event that reaches a server (__bdev_release in block/bdev.c calls no function
// of the ublk driver).
const autoclearInterval = 500 * time.Millisecond

// reaper stops the released devices of a Server when they are no longer in use
// (lifetime).
//
//	rests ──> schedule ──> runs ──> no device to check, or the server is closed ──> rests
//
// It has a goroutine while it runs. The goroutine stops a device only under the lock of
// the device's state, and only if the device is released and no Keep is running.
type reaper struct {
	s    *Server
	wake chan struct{}  // receives when a device must be checked now
	done sync.WaitGroup // waits for the goroutine
	runs bool           // protected by Server.mu

	// asking is held while another process checks devices.
	asking sync.Mutex
}

// checks says when a device is checked.
type checks struct {
	next  time.Time
	pause time.Duration // time until the check after next
}

func newReaper(s *Server) *reaper {
	return &reaper{s: s, wake: make(chan struct{}, 1)}
}

// schedule makes the reaper check a released device at once and then repeatedly. The
// caller holds Server.mu.
func (r *reaper) schedule(d *served) {
	if r.s.closed {
		return
	}
	d.checks = checks{next: time.Now(), pause: firstPause}
	if !r.runs {
		r.runs = true
		r.done.Add(1)
		go r.run()
	}
	r.alarm()
}

// settle waits until the other process has finished its check.
func (r *reaper) settle() {
	r.asking.Lock()
	defer r.asking.Unlock()
}

// alarm makes the goroutine check at once, or end.
func (r *reaper) alarm() {
	select {
	case r.wake <- struct{}{}:
	default: // an alarm is already pending
	}
}

// run checks each device at its time, until there is no device to check. When the server
// is closed, run finishes the check of one device and ends. Shutdown waits for that.
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

// due returns the devices to check now, and the time of the next check. A zero time means
// that there is nothing to check, and the goroutine ends.
func (r *reaper) due(now time.Time) (due []*served, next time.Time) {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	for _, d := range r.s.devices {
		if !d.isReaped() || d.dev.isDone() {
			continue
		}
		if c := &d.checks; !c.next.After(now) {
			due = append(due, d)
			c.next = now.Add(c.pause)
			c.pause = min(2*c.pause, autoclearInterval)
		}
		if next.IsZero() || d.checks.next.Before(next) {
			next = d.checks.next
		}
	}
	if next.IsZero() || r.s.closed {
		r.runs = false
		return nil, time.Time{}
	}
	return due, next
}

// stop stops the devices that are not in use. If the driver cannot tell, another process
// checks all these devices.
func (r *reaper) stop(due []*served) {
	var unknown []*served
	for _, d := range due {
		if r.s.isClosed() {
			return
		}
		err := r.s.stopWith(d, func(id uint32) error { return r.tryStop(d, id) })
		if errors.Is(err, ublk.ErrNotSupported) {
			unknown = append(unknown, d)
		}
	}
	if len(unknown) > 0 && !r.s.isClosed() {
		r.ask(unknown)
	}
}

// tryStop stops a released device that is not in use. The caller holds the lock of its
// state, for which Keep waits.
func (r *reaper) tryStop(d *served, id uint32) error {
	if !r.s.isReaped(d) {
		return nil
	}
	return r.s.ctl.TryStop(id)
}

// ask makes another process stop the devices that are not in use.
func (r *reaper) ask(unknown []*served) {
	r.asking.Lock()
	defer r.asking.Unlock()
	var devices []TaggedID
	for _, d := range unknown {
		if r.s.isReaped(d) {
			devices = append(devices, d.dev.taggedID())
		}
	}
	if len(devices) > 0 {
		// An error means that a device is in use or gone; the next check will tell.
		_ = r.s.opts.StopUnused(devices...)
	}
}
