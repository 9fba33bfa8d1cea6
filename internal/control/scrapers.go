package control

import (
	"errors"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
)

// maxScrapers is how many clients may read the metrics over TCP at a time:
// anybody may, and the server's memory is locked.
const maxScrapers = 16

// ServeMetrics answers what comes by a listener of TCP, until h is closed.
func ServeMetrics(h *http.Server, l net.Listener) error {
	err := h.Serve(&scrapeListener{Listener: l})
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// scrapeListener is a listener that closes what comes while it has enough connections.
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

// scrapeConn is one of its connections.
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
