package loop

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk"
)

// autoclearInterval is the maximum time between two checks whether a device is still in
// use. The kernel does not report the end of the use: neither a close nor an unmount
// causes an event that reaches a server (__bdev_release in block/bdev.c calls no function
// of the ublk driver).
const autoclearInterval = 500 * time.Millisecond

// checkPatience is the maximum time for which the check of one device delays those of the
// others. The driver answers in microseconds, unless the disk of the device hangs.
const checkPatience = 100 * time.Millisecond

// reaper stops the released devices of a Server when they are no longer in use
// (lifetime).
//
//	rests ──> schedule ──> runs ──> no device to check, or the server is closed ──> rests
//
// It has a goroutine while it runs, and each check has one. A check that takes long delays
// only the next check of its device. It stops the device only under the lock of the
// device's state, and only if the device is released and no Keep is running.
type reaper struct {
	s    *Server
	wake chan struct{}  // receives when a device must be checked now
	done sync.WaitGroup // waits for the goroutine and its checks
	runs bool           // protected by Server.mu
}

// checks says when a device is checked. Server.mu protects it.
type checks struct {
	next    time.Time
	pause   time.Duration // time until the check after next
	running bool          // there is no second check at the same time
	// asked is closed when another process has finished its check of the device; nil
	// while there is none.
	asked chan struct{}
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
	d.checks.next, d.checks.pause = time.Now(), firstPause
	if !r.runs {
		r.runs = true
		r.done.Add(1)
		go r.run()
	}
	r.alarm()
}

// settle waits until the other process has finished its check of a device. It returns an
// error that wraps EBUSY if that takes longer than slowAfter.
func (r *reaper) settle(d *served) error {
	r.s.mu.Lock()
	asked := d.checks.asked
	r.s.mu.Unlock()
	if asked == nil {
		return nil
	}
	select {
	case <-asked:
		return nil
	case <-time.After(slowAfter):
		return fmt.Errorf("%s: the check whether it is in use takes long: %w", d.dev.Path(), unix.EBUSY)
	}
}

// alarm makes the goroutine check at once, or end.
func (r *reaper) alarm() {
	select {
	case r.wake <- struct{}{}:
	default: // an alarm is already pending
	}
}

// run checks each device at its time, until there is no device to check, or until the
// server is closed.
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
			if !c.running {
				due = append(due, d)
			}
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
// checks all these devices. stop does not wait for a check that takes long.
func (r *reaper) stop(due []*served) {
	var unknown []*served
	for _, d := range due {
		if r.s.isClosed() {
			return
		}
		if errors.Is(r.check(d), ublk.ErrNotSupported) {
			unknown = append(unknown, d)
		}
	}
	if asked := r.beginAsking(unknown); len(asked) > 0 {
		r.done.Go(func() { r.ask(asked) }) // ends with the other process
	}
}

// check stops a device that is not in use. It returns nil if the driver does not answer
// within checkPatience. In this case the check continues.
func (r *reaper) check(d *served) error {
	if !r.begin(d) {
		return nil
	}
	checked := make(chan error, 1)
	r.done.Go(func() { // ends with the driver's answer
		stopped := r.s.guard(d.dev.Path(), "stop")
		err := r.s.stopWith(d, func(id uint32) error { return r.tryStop(d, id) })
		stopped()
		r.end(d)
		checked <- err
	})
	select {
	case err := <-checked:
		return err
	case <-time.After(checkPatience):
		return nil
	}
}

// begin begins a check of a device. It returns false if the device has another check.
func (r *reaper) begin(d *served) bool {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	if d.checks.running {
		return false
	}
	d.checks.running = true
	return true
}

func (r *reaper) end(d *served) {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	d.checks.running = false
}

// tryStop stops a released device that is not in use. The caller holds the lock of its
// state, for which Keep waits.
func (r *reaper) tryStop(d *served, id uint32) error {
	if !r.s.isReaped(d) {
		return nil
	}
	return r.s.ctl.TryStop(id)
}

// ask makes another process stop the devices that are not in use, and waits for it.
func (r *reaper) ask(asked map[TaggedID]*served) {
	var devices []TaggedID
	for device, d := range asked {
		devices = append(devices, device)
		defer r.s.guard(d.dev.Path(), "check the use of")()
	}
	// An error means that a device is in use or gone; the next check will tell.
	_ = r.s.opts.StopUnused(func(device TaggedID, _ error) { r.endAsking(asked[device]) }, devices...)
	for _, d := range asked {
		r.endAsking(d) // the other process may have ended without an answer
	}
}

// beginAsking returns the devices that the other process has to check: those that are to
// be reaped and have no other check. It returns none if the server is closed.
func (r *reaper) beginAsking(unknown []*served) map[TaggedID]*served {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	asked := map[TaggedID]*served{}
	for _, d := range unknown {
		if !r.s.closed && d.isReaped() && !d.checks.running {
			d.checks.running, d.checks.asked = true, make(chan struct{})
			asked[d.dev.taggedID()] = d
		}
	}
	return asked
}

// endAsking is the counterpart of beginAsking, for one device. A second call does nothing.
func (r *reaper) endAsking(d *served) {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	if d.checks.asked != nil {
		close(d.checks.asked)
		d.checks.running, d.checks.asked = false, nil
	}
}
