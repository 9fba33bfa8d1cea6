package control

import (
	"errors"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Holder is who a device is there for, for the server's successor.
type Holder struct {
	Conn  *os.File  // the connection, nil where it has ended
	Until time.Time // the device stays at least so long
}

// Holders returns those of all devices. With a descriptor of its own a connection
// stays when this server closes its.
func (s *Server) Holders() (map[uint32]Holder, error) {
	s.leases.mu.Lock()
	defer s.leases.mu.Unlock()
	all := map[uint32]Holder{}
	var errs []error
	for id, tie := range s.leases.byID {
		h := Holder{Until: tie.until}
		if tie.conn != nil {
			var err error
			if h.Conn, err = tie.conn.File(); err != nil {
				errs = append(errs, err)
				continue
			}
		}
		all[id] = h
	}
	return all, errors.Join(errs...)
}

// Adopt takes over a lease from the last server's Holders, whose descriptor it
// closes. The lease is this server's from then on, until the client has closed
// the connection: what it still sends is of no interest.
func (s *Server) Adopt(id uint32, h Holder) error {
	var conn *net.UnixConn
	if h.Conn != nil {
		c, err := net.FileConn(h.Conn)
		if err := errors.Join(err, h.Conn.Close()); err != nil {
			return err
		}
		var ok bool
		if conn, ok = c.(*net.UnixConn); !ok {
			return errors.Join(unix.EPROTOTYPE, c.Close())
		}
	}
	tie := s.leases.begin(id, conn, h.Until)
	s.expireAt(id, tie, h.Until)
	if conn == nil {
		return nil
	}
	go func() { // until the client has gone, or this process
		_, _ = io.Copy(io.Discard, conn)
		s.endLease(id, tie)
		_ = conn.Close()
	}()
	return nil
}
