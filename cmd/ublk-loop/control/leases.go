package control

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// leases are what ties devices to connections, by device. An id may be another
// device's when a lease of it ends: the lease then is no longer here.
type leases struct {
	mu   sync.Mutex // protects what is below
	byID map[uint32]*lease
}

// lease ties a device to a connection.
type lease struct {
	conn *net.UnixConn // nil when it has ended
	kept bool          // the device stays for some time after that
}

func (l *leases) begin(id uint32, c *net.UnixConn) *lease {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.byID == nil {
		l.byID = map[uint32]*lease{}
	}
	tie := &lease{conn: c}
	l.byID[id] = tie
	return tie
}

// end ends a lease with its connection, and reports whether the device is
// nobody's by that.
func (l *leases) end(id uint32, tie *lease) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	tie.conn = nil
	return !tie.kept && l.remove(id, tie)
}

// extend has the device stay after the end of its lease, until expire. It
// returns nil where it has none.
func (l *leases) extend(id uint32) *lease {
	l.mu.Lock()
	defer l.mu.Unlock()
	tie := l.byID[id]
	if tie == nil || tie.conn == nil {
		return nil
	}
	tie.kept = true
	return tie
}

// expire ends the time for which a device stays, and reports whether it is
// nobody's by that.
func (l *leases) expire(id uint32, tie *lease) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.remove(id, tie)
}

// remove reports whether the lease was there. The lock is held.
func (l *leases) remove(id uint32, tie *lease) bool {
	if l.byID[id] != tie {
		return false
	}
	delete(l.byID, id)
	return true
}

// Leases returns descriptors of the connections that devices are tied to, for
// the server's successor: with one of them a connection stays when this server
// closes its own.
func (s *Server) Leases() (map[uint32]*os.File, error) {
	s.leases.mu.Lock()
	defer s.leases.mu.Unlock()
	files := map[uint32]*os.File{}
	var errs []error
	for id, tie := range s.leases.byID {
		if tie.conn == nil {
			continue
		}
		f, err := tie.conn.File()
		if err != nil {
			errs = append(errs, err)
			continue
		}
		files[id] = f
	}
	return files, errors.Join(errs...)
}

// Adopt takes over a lease, by a descriptor from the last server's Leases, which
// it closes. The lease is this server's from then on, until the client has
// closed the connection: what it still sends is of no interest.
func (s *Server) Adopt(id uint32, f *os.File) error {
	c, err := net.FileConn(f)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	unixConn, ok := c.(*net.UnixConn)
	if !ok {
		return errors.Join(unix.EPROTOTYPE, c.Close())
	}
	tie := s.leases.begin(id, unixConn)
	go func() { // until the client has gone, or this process
		_, _ = io.Copy(io.Discard, unixConn)
		if s.leases.end(id, tie) {
			s.Devices.Release(id)
		}
		_ = unixConn.Close()
	}()
	return nil
}
