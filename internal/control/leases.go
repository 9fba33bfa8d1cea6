package control

import (
	"net"
	"sync"
	"time"
)

// leases maps devices to their leases. The lease of a removed device stays until it ends.
type leases struct {
	mu       sync.Mutex // protects byDevice and each lease
	byDevice map[device]*lease
}

// device identifies a device. The sequence number of its disk tells it from others with its id.
type device struct {
	id       uint32
	sequence uint64
}

// lease ties a device to a connection, and keeps it at least until a time.
type lease struct {
	device
	conn  *net.UnixConn // nil after its end
	until time.Time
	timer *time.Timer // for until; nil before the first one
}

// isOver reports whether the lease has run out.
func (l *lease) isOver() bool { return l.conn == nil && !time.Now().Before(l.until) }

// begin makes a lease. c is nil if the connection has ended already.
func (l *leases) begin(of device, c *net.UnixConn, until time.Time) *lease {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.byDevice == nil {
		l.byDevice = map[device]*lease{}
	}
	tie := &lease{device: of, conn: c, until: until}
	l.byDevice[of] = tie
	return tie
}

// end marks the connection of a lease as ended, and reports whether the device is now
// free.
func (l *leases) end(tie *lease) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	tie.conn = nil
	return tie.isOver() && l.remove(tie)
}

// extend keeps a leased device at least until a time, even if its connection ends. The
// caller must call expire at that time. extend returns nil if the device has no lease
// with a connection.
func (l *leases) extend(of device, until time.Time) *lease {
	l.mu.Lock()
	defer l.mu.Unlock()
	tie := l.byDevice[of]
	if tie == nil || tie.conn == nil {
		return nil
	}
	if until.After(tie.until) {
		tie.until = until
	}
	return tie
}

// expire reports whether the lease has run out and the device is now free.
func (l *leases) expire(tie *lease) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return tie.isOver() && l.remove(tie)
}

// wake calls a function when the time of a lease has come. It replaces an earlier call, so that a
// lease has one timer, however often it is extended.
func (l *leases) wake(tie *lease, call func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if tie.timer == nil {
		tie.timer = time.AfterFunc(time.Until(tie.until), call)
	} else {
		tie.timer.Reset(time.Until(tie.until))
	}
}

// remove removes a lease, and reports whether it was there. The caller holds the lock.
func (l *leases) remove(tie *lease) bool {
	if l.byDevice[tie.device] != tie {
		return false
	}
	delete(l.byDevice, tie.device)
	if tie.timer != nil {
		tie.timer.Stop()
	}
	return true
}

// endLease ends a lease when its connection has ended, and releases the device if it is
// free.
func (s *Server) endLease(tie *lease) {
	if s.leases.end(tie) {
		s.Devices.Release(tie.id, &tie.sequence)
	}
}

// expireInTime releases the device at the time of its lease, if it is free then.
func (s *Server) expireInTime(tie *lease) {
	s.leases.wake(tie, func() {
		if s.leases.expire(tie) {
			s.Devices.Release(tie.id, &tie.sequence)
		}
	})
}
