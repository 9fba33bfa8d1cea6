package control

import (
	"net"
	"os"
	"sync/atomic"
)

// maxConns limits the number of connected clients. It exceeds the number of devices with
// leases that a server can have.
const maxConns = 4096

// listener accepts at most maxConns connections of permitted users. It closes others at
// once.
type listener struct {
	*net.UnixListener
	conns atomic.Int32
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		if l.conns.Add(1) > maxConns {
			l.conns.Add(-1)
			_ = c.Close()
			continue
		}
		accepted, err := newConn(c, func() { l.conns.Add(-1) })
		if err != nil {
			l.conns.Add(-1)
			_ = c.Close()
			continue
		}
		return accepted, nil
	}
}

// mayUse reports whether a user may use the server: root, or the server's own user. The
// socket's mode enforces the same rule; this check holds even if the mode changes.
func mayUse(uid uint32) bool { return uid == 0 || int(uid) == os.Geteuid() }
