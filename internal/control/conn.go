package control

import (
	"errors"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
)

// conn is a connection of the server, which receives the descriptors that are sent with
// the data. conn owns them until take.
type conn struct {
	*net.UnixConn
	uid uint32 // of the connected process
	// ended is called once, when the connection is closed.
	ended func()
	once  sync.Once

	mu     sync.Mutex // protects the fields below
	fds    []int
	closed bool
}

// newConn returns a connection, and asks the kernel for its peer's user (SO_PEERCRED in
// unix(7)).
func newConn(c *net.UnixConn, ended func()) (*conn, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return nil, err
	}
	if credErr != nil {
		return nil, os.NewSyscallError("getsockopt", credErr)
	}
	return &conn{UnixConn: c, uid: cred.Uid, ended: ended}, nil
}

// Read implements net.Conn. The kernel closes descriptors for which the ancillary data has no room.
func (c *conn) Read(p []byte) (int, error) {
	oob := make([]byte, unix.CmsgSpace(client.MaxDescriptors*4))
	n, oobn, _, _, err := c.ReadMsgUnix(p, oob)
	if oobn > 0 {
		err = errors.Join(err, c.keep(oob[:oobn]))
	}
	return max(n, 0), err // n is negative after an error
}

// keep stores the descriptors of ancillary data (SCM_RIGHTS in unix(7)). Package net has received
// them close-on-exec.
func (c *conn) keep(oob []byte) error {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			continue // not a message with descriptors
		}
		c.fds = append(c.fds, fds...)
	}
	switch {
	case c.closed: // while Read was running
		err = net.ErrClosed
	case len(c.fds) > client.MaxDescriptors:
		err = errors.New("too many descriptors")
	default:
		return nil
	}
	closeAll(c.fds)
	c.fds = nil
	return err
}

// take returns the received descriptors. The caller owns them.
func (c *conn) take() []int {
	c.mu.Lock()
	defer c.mu.Unlock()
	fds := c.fds
	c.fds = nil
	return fds
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	closeAll(c.take())
	err := c.UnixConn.Close()
	c.once.Do(c.ended)
	return err
}

func closeAll(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}
