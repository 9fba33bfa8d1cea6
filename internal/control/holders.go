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
	devices := s.Devices.Devices()
	s.leases.mu.Lock()
	defer s.leases.mu.Unlock()
	all := map[uint32]Holder{}
	var errs []error
	for i := range devices {
		tie := s.leases.byDevice[device{devices[i].ID, devices[i].DiskSequence}]
		if tie == nil {
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
		all[tie.id] = h
	}
	return all, errors.Join(errs...)
}

// Adopt takes over a lease from the last server's Holders, and closes the descriptor of
// the Holder. The lease lasts until the client closes the connection. Adopt ignores any
// data that the client still sends. After an error the device is released.
func (s *Server) Adopt(id uint32, sequence uint64, h Holder) error {
	conn, err := h.connection()
	if err != nil {
		s.Devices.Release(id, &sequence)
		return err
	}
	until := h.Until
	if !until.IsZero() { // A step of the wall clock, by which the last server has given it, must not move it.
		now := time.Now()
		until = now.Add(until.Sub(now))
	}
	tie := s.leases.begin(device{id, sequence}, conn, until)
	s.expireInTime(tie)
	if conn == nil {
		return nil
	}
	go func() { // until the client or this process ends
		_, _ = io.Copy(io.Discard, conn)
		s.endLease(tie)
		_ = conn.Close()
	}()
	return nil
}

// connection returns the client's connection, nil if it has ended, and closes Conn.
func (h *Holder) connection() (*net.UnixConn, error) {
	if h.Conn == nil {
		return nil, nil
	}
	c, err := net.FileConn(h.Conn)
	if err := errors.Join(err, h.Conn.Close()); err != nil {
		return nil, err
	}
	conn, ok := c.(*net.UnixConn)
	if !ok {
		return nil, errors.Join(unix.EPROTOTYPE, c.Close())
	}
	return conn, nil
}
