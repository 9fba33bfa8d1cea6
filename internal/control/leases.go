package control

import (
	"net"
	"sync"
	"time"
)

// leases maps devices to their leases. A removed lease may still end after another device
// has got its id; byID then no longer has that lease.
type leases struct {
	mu   sync.Mutex // protects byID and each lease
	byID map[uint32]*lease
}

// lease ties a device to a connection, and keeps it at least until a time.
type lease struct {
	sequence uint64        // of the device's disk, which tells it from the next one with its id
	conn     *net.UnixConn // nil after its end
	until    time.Time
}

// isOver reports whether the lease has run out.
func (l *lease) isOver() bool { return l.conn == nil && !time.Now().Before(l.until) }

// begin makes a lease. c is nil if the connection has ended already.
func (l *leases) begin(id uint32, sequence uint64, c *net.UnixConn, until time.Time) *lease {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.byID == nil {
		l.byID = map[uint32]*lease{}
	}
	tie := &lease{sequence: sequence, conn: c, until: until}
	l.byID[id] = tie
	return tie
}

// end marks the connection of a lease as ended, and reports whether the device is now
// free.
func (l *leases) end(id uint32, tie *lease) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	tie.conn = nil
	return tie.isOver() && l.remove(id, tie)
}

// extend keeps a leased device at least until a time, even if its connection ends. The
// caller must call expire at that time. extend returns nil if the device has no lease
// with a connection.
func (l *leases) extend(id uint32, sequence *uint64, until time.Time) *lease {
	l.mu.Lock()
	defer l.mu.Unlock()
	tie := l.byID[id]
	if tie == nil || tie.conn == nil || sequence != nil && tie.sequence != *sequence {
		return nil
	}
	if until.After(tie.until) {
		tie.until = until
	}
	return tie
}

// expire reports whether the lease has run out and the device is now free.
func (l *leases) expire(id uint32, tie *lease) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return tie.isOver() && l.remove(id, tie)
}

// remove removes a lease, and reports whether byID still had it. The caller holds the
// lock.
func (l *leases) remove(id uint32, tie *lease) bool {
	if l.byID[id] != tie {
		return false
	}
	delete(l.byID, id)
	return true
}

// endLease ends a lease when its connection has ended, and releases the device if it is
// free.
func (s *Server) endLease(id uint32, tie *lease) {
	if s.leases.end(id, tie) {
		s.Devices.Release(id, &tie.sequence)
	}
}

// expireAt releases the device at a time, if it is free then.
func (s *Server) expireAt(id uint32, tie *lease, until time.Time) {
	time.AfterFunc(time.Until(until), func() {
		if s.leases.expire(id, tie) {
			s.Devices.Release(id, &tie.sequence)
		}
	})
}
