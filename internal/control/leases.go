package control

import (
	"net"
	"sync"
	"time"
)

// leases are what ties devices to connections, by device. An id may be another
// device's when a lease of it ends: the lease then is no longer here.
type leases struct {
	mu   sync.Mutex // protects what is below
	byID map[uint32]*lease
}

// lease ties a device to a connection, and has it stay until some time.
type lease struct {
	conn  *net.UnixConn // nil when it has ended
	until time.Time
}

// isOver reports whether the device is nobody's.
func (l *lease) isOver() bool { return l.conn == nil && !time.Now().Before(l.until) }

// begin ties a device to a connection, nil for one that has ended, and has it stay
// until some time.
func (l *leases) begin(id uint32, c *net.UnixConn, until time.Time) *lease {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.byID == nil {
		l.byID = map[uint32]*lease{}
	}
	tie := &lease{conn: c, until: until}
	l.byID[id] = tie
	return tie
}

// end ends a lease's connection, and reports whether the device is nobody's by
// that.
func (l *leases) end(id uint32, tie *lease) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	tie.conn = nil
	return tie.isOver() && l.remove(id, tie)
}

// extend has a leased device stay until some time, whatever becomes of the
// connection. The caller calls expire then. It returns nil where it has no
// lease.
func (l *leases) extend(id uint32, until time.Time) *lease {
	l.mu.Lock()
	defer l.mu.Unlock()
	tie := l.byID[id]
	if tie == nil || tie.conn == nil {
		return nil
	}
	if until.After(tie.until) {
		tie.until = until
	}
	return tie
}

// expire reports, when the time is over for which a device stays, whether it is
// nobody's by that.
func (l *leases) expire(id uint32, tie *lease) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return tie.isOver() && l.remove(id, tie)
}

// remove reports whether the lease was there. The lock is held.
func (l *leases) remove(id uint32, tie *lease) bool {
	if l.byID[id] != tie {
		return false
	}
	delete(l.byID, id)
	return true
}

// endLease ends a lease with its connection.
func (s *Server) endLease(id uint32, tie *lease) {
	if s.leases.end(id, tie) {
		s.Devices.Release(id)
	}
}

// expireAt looks after a lease when the time is over for which its device stays.
func (s *Server) expireAt(id uint32, tie *lease, until time.Time) {
	time.AfterFunc(time.Until(until), func() {
		if s.leases.expire(id, tie) {
			s.Devices.Release(id)
		}
	})
}
