package systemd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"

	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"
)

// ErrNotRunning says that systemd does not manage the processes of this pid namespace.
var ErrNotRunning = errors.New("systemd does not run")

// privateSocket is where systemd takes calls of root without a D-Bus daemon, as those of
// systemctl. It tells each of these connections which jobs have ended.
const privateSocket = "/run/systemd/private"

// Manager is a connection to systemd.
type Manager struct {
	conn *dbus.Conn
}

// Connect returns a connection that ends with the context, or an error that wraps
// ErrNotRunning.
func Connect(ctx context.Context) (*Manager, error) { return connect(ctx, privateSocket, 1) }

// connect connects to the socket at path, if the process with the given pid has opened it.
func connect(ctx context.Context, path string, pid int32) (*Manager, error) {
	var dialer net.Dialer
	raw, err := dialer.DialContext(ctx, "unix", path)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ECONNREFUSED) {
		return nil, ErrNotRunning
	}
	if err != nil {
		return nil, err
	}
	if err := checkPeer(raw, pid); err != nil {
		_ = raw.Close()
		return nil, err
	}
	conn, err := dbus.NewConn(raw, dbus.WithContext(ctx))
	if err != nil {
		_ = raw.Close()
		return nil, err
	}
	if err := conn.Auth([]dbus.Auth{dbus.AuthExternal(strconv.Itoa(os.Getuid()))}); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("authenticate to systemd: %w", err)
	}
	return &Manager{conn}, nil
}

// Close ends the connection.
func (m *Manager) Close() error { return m.conn.Close() }

// checkPeer returns an error unless the process with the given pid listens at the other
// end.
func checkPeer(conn net.Conn, pid int32) error {
	c, err := conn.(*net.UnixConn).SyscallConn() //nolint:errcheck // connect uses no other network
	if err != nil {
		return err
	}
	var peer *unix.Ucred
	var credErr error
	err = c.Control(func(fd uintptr) {
		peer, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err := errors.Join(err, credErr); err != nil {
		return fmt.Errorf("find out who listens: %w", err)
	}
	if peer.Pid != pid {
		return ErrNotRunning
	}
	return nil
}
