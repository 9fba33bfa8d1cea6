// Package scrapers limits the clients that read metrics over TCP, because any client may connect.
package scrapers

import (
	"net"
	"sync"
	"sync/atomic"
)

// Max is the number of clients that a listener has at the same time.
const Max = 16

// Limit returns a listener that closes new connections while it has Max connections.
func Limit(l net.Listener) net.Listener { return &listener{Listener: l} }

type listener struct {
	net.Listener
	conns atomic.Int32
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if l.conns.Add(1) <= Max {
			return &conn{Conn: c, listener: l}, nil
		}
		l.conns.Add(-1)
		_ = c.Close()
	}
}

// conn is a connection of a limited listener.
type conn struct {
	net.Conn
	listener *listener
	once     sync.Once
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.once.Do(func() { c.listener.conns.Add(-1) })
	return c.Conn.Close()
}
