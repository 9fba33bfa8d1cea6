package daemon

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// activatedSocket returns the socket that the service manager listens at for
// this process (sd_listen_fds(3)), nil for none.
func activatedSocket(getenv func(string) string, pid int) (*os.File, error) {
	if getenv("LISTEN_PID") != strconv.Itoa(pid) {
		return nil, nil
	}
	if n := getenv("LISTEN_FDS"); n != "1" {
		return nil, fmt.Errorf("LISTEN_FDS is %q: not one socket: %w", n, unix.EINVAL)
	}
	return received(3, "socket"), nil // SD_LISTEN_FDS_START
}

// listen makes a socket at a path that only its owner may connect to, in place
// of one that a server has left which is no more. The lock says whether there
// is one: it ends with the server, however that ends.
func listen(path string) (lock, socket *os.File, err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, nil, fmt.Errorf("make socket: %w", err)
	}
	lock, err = os.OpenFile(path+".lock", os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("make socket: %w", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("listen at %s: another server does: %w", path, err), lock.Close())
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, nil, errors.Join(err, lock.Close())
	}
	defer unix.Umask(unix.Umask(0o177))
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, nil, errors.Join(err, lock.Close())
	}
	l.SetUnlinkOnClose(false) // it is the server's, not this listener's
	socket, err = l.File()
	return lock, socket, errors.Join(err, l.Close())
}

// listenTCP makes a socket for the metrics.
func listenTCP(address string) (*os.File, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	tcp, ok := l.(*net.TCPListener)
	if !ok {
		return nil, errors.Join(unix.EPROTOTYPE, l.Close())
	}
	socket, err := tcp.File()
	return socket, errors.Join(err, l.Close())
}

// listenerOf returns the listener of an open socket.
func listenerOf(socket *os.File) (*net.UnixListener, error) {
	l, err := net.FileListener(socket)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	unixListener, ok := l.(*net.UnixListener)
	if !ok {
		return nil, errors.Join(fmt.Errorf("listen at %s: %w", l.Addr(), unix.EPROTOTYPE), l.Close())
	}
	return unixListener, nil
}

// removeSocket removes a socket that is not the service manager's, while the
// lock still says whose it is.
func removeSocket(path string) {
	if path == "" {
		return
	}
	_ = os.Remove(path)
	_ = os.Remove(path + ".lock")
}
