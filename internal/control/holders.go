package control

import (
	"errors"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Holder holds a device for a client. The server passes it to its successor.
type Holder struct {
	Conn  *os.File  // the client's connection, nil if it has ended
	Until time.Time // earliest removal of the device
}

// Holders returns the holders of all devices, by id. They have duplicates of the
// connections' descriptors, so that a connection survives when this server closes its
// own. A lease of a removed device is left out: another device may have the id.
func (s *Server) Holders() (map[uint32]Holder, error) {
	sequences := map[uint32]uint64{}
	for _, device := range s.Devices.Devices() {
		sequences[device.ID] = device.DiskSequence
	}
	s.leases.mu.Lock()
	defer s.leases.mu.Unlock()
	all := map[uint32]Holder{}
	var errs []error
	for id, tie := range s.leases.byID {
		if sequence, found := sequences[id]; !found || sequence != tie.sequence {
			continue
		}
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

// Adopt takes over a lease from the last server's Holders, and closes the descriptor of
// the Holder. The lease lasts until the client closes the connection. Adopt ignores any
// data that the client still sends.
func (s *Server) Adopt(id uint32, sequence uint64, h Holder) error {
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
	tie := s.leases.begin(id, sequence, conn, h.Until)
	s.expireAt(id, tie, h.Until)
	if conn == nil {
		return nil
	}
	go func() { // until the client or this process ends
		_, _ = io.Copy(io.Discard, conn)
		s.endLease(id, tie)
		_ = conn.Close()
	}()
	return nil
}
