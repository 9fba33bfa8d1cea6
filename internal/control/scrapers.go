package control

import (
	"errors"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
)

// maxScrapers limits the number of clients that read the metrics over TCP at the same
// time. Any client may connect, and the server's memory is locked.
const maxScrapers = 16

// ServeMetrics answers the connections of a TCP listener until h is closed.
func ServeMetrics(h *http.Server, l net.Listener) error {
	err := h.Serve(&scrapeListener{Listener: l})
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// scrapeListener closes new connections while it has maxScrapers connections.
type scrapeListener struct {
	net.Listener
	conns atomic.Int32
}

// Accept implements net.Listener.
func (l *scrapeListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if l.conns.Add(1) <= maxScrapers {
			return &scrapeConn{Conn: c, listener: l}, nil
		}
		l.conns.Add(-1)
		_ = c.Close()
	}
}

// scrapeConn is a connection of a scrapeListener.
type scrapeConn struct {
	net.Conn
	listener *scrapeListener
	once     sync.Once
}

// Close implements net.Conn.
func (c *scrapeConn) Close() error {
	c.once.Do(func() { c.listener.conns.Add(-1) })
	return c.Conn.Close()
}
