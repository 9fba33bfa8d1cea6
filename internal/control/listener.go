package control

import (
	"errors"
	"net"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// maxConns limits the number of connected clients. It exceeds the number of devices with
// leases that a server can have.
const maxConns = 4096

// listener accepts at most maxConns connections of permitted users. It closes others at
// once, and refuses those of other users.
type listener struct {
	*net.UnixListener
	conns atomic.Int32
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return nil, err
		}
		if err != nil {
			return nil, passingError{err}
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
		if !mayUse(accepted.uid) {
			go accepted.refuse() // ends within headerTimeout
			continue
		}
		return accepted, nil
	}
}

// passingError makes net/http try again after a pause. Otherwise the server would end with its devices, for example when
// the kernel has no memory for a connection (ENOMEM), which package net does not take for a passing error.
type passingError struct{ error }

var _ net.Error = passingError{}

// Timeout implements net.Error.
func (passingError) Timeout() bool { return false }

// Temporary implements net.Error.
func (passingError) Temporary() bool { return true }

// Unwrap returns the error itself.
func (e passingError) Unwrap() error { return e.error }

// refusal is the answer to every request of another user.
const refusal = "HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Type: application/json\r\n\r\n" +
	`{"error":"only root may use this server"}` + "\n"

// refuse closes a connection. It answers the request without reading it, so that nothing
// of what another user sends is parsed. A client expects the answer after its request.
func (c *conn) refuse() {
	defer func() { _ = c.Close() }()
	if c.SetDeadline(time.Now().Add(headerTimeout)) == nil && c.awaitData() == nil {
		_, _ = c.Write([]byte(refusal))
	}
}

// awaitData waits until the client has sent something.
func (c *conn) awaitData() error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Read(func(fd uintptr) bool {
		_, _, err := unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
		return !errors.Is(err, unix.EAGAIN)
	})
}

// mayUse reports whether a user may use the server: root, or the server's own user. The
// socket's mode enforces the same rule; this check holds even if the mode changes.
func mayUse(uid uint32) bool { return uid == 0 || int(uid) == os.Geteuid() }
