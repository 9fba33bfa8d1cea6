package control

import (
	"net"
	"os"
	"sync/atomic"
)

// maxConns is how many clients may be connected: as many as a server may have
// leased devices, and then some.
const maxConns = 4096

// listener accepts the connections of those who may use the server, as many as
// there may be. It closes others at once.
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

// mayUse reports whether a process of a user may use the server: root, and the
// server's own user. The socket's mode says the same; this holds whatever
// becomes of that.
func mayUse(uid uint32) bool { return uid == 0 || int(uid) == os.Geteuid() }
