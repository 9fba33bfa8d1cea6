package daemon

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/flock"
	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/internal/owndir"
)

// activatedSocket returns the socket at which the service manager listens for this
// process (sd_listen_fds(3)), or nil.
func activatedSocket(getenv func(string) string, pid int) (*os.File, error) {
	if getenv("LISTEN_PID") != strconv.Itoa(pid) {
		return nil, nil
	}
	if n := getenv("LISTEN_FDS"); n != "1" {
		return nil, fmt.Errorf("LISTEN_FDS is %q: not one socket: %w", n, unix.EINVAL)
	}
	return received(3, "socket"), nil // SD_LISTEN_FDS_START
}

// listen makes a socket at a path to which only its owner may connect. It replaces the
// socket of a server that has ended. The lock shows whether that server still runs,
// because the kernel releases the lock when the server ends for any reason.
func listen(path string) (lock, socket *os.File, err error) {
	if err := owndir.Make(filepath.Dir(path)); err != nil {
		return nil, nil, fmt.Errorf("make socket: %w", err)
	}
	lock, err = lockFor(path)
	if err != nil {
		return nil, nil, err
	}
	l, err := replaceSocket(path)
	if err != nil {
		_ = os.Remove(path + lockSuffix)
		return nil, nil, errors.Join(err, lock.Close())
	}
	_, err = lock.WriteAt([]byte(socketAt(path)), 0)
	if err == nil {
		socket, err = l.File()
	}
	return lock, socket, errors.Join(err, l.Close())
}

// replaceSocket makes a socket in place of one that no server has. It returns an error that wraps
// EEXIST if anything else is at the path, and EADDRINUSE if the socket is open. That one is the service
// manager's, because it has no lock. The service manager would not notice that another has taken its place.
func replaceSocket(path string) (*net.UnixListener, error) {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return listenAt(path)
	case err != nil:
		return nil, err
	case info.Mode().Type() != os.ModeSocket:
		return nil, fmt.Errorf("listen at %s: it is not a socket: %w", path, unix.EEXIST)
	}
	for over := time.After(socketTimeout); isOpen(path); {
		select {
		case <-over:
			err := fmt.Errorf("listen at %s: a service manager listens there: %w", path, unix.EADDRINUSE)
			return nil, hint.Add(err, "start its service, ublk-loop.service, or stop ublk-loop.socket first")
		case <-time.After(time.Millisecond):
		}
	}
	if err := os.Remove(path); err != nil {
		return nil, err
	}
	return listenAt(path)
}

// socketTimeout bounds the time in which the kernel closes the socket of a killed server after its lock.
const socketTimeout = time.Second

// isOpen reports whether a process has the socket at a path open. It tries a connection of another type, which is
// refused: a connection would start the service of the socket.
func isOpen(path string) bool {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer func() { _ = unix.Close(fd) }()
	return errors.Is(unix.Connect(fd, &unix.SockaddrUnix{Name: path}), unix.EPROTOTYPE)
}

// lockFor locks the file beside a socket. Its holder removes the file in the end. If that happens
// before lockFor has the lock, lockFor locks the next file.
func lockFor(socket string) (*os.File, error) {
	for {
		lock, err := os.OpenFile(socket+lockSuffix, os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, fmt.Errorf("make socket: %w", err)
		}
		if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			if errors.Is(err, unix.EWOULDBLOCK) {
				err = fmt.Errorf("another server listens there: %w", unix.EADDRINUSE)
			}
			err = fmt.Errorf("listen at %s: %w", socket, err)
			return nil, errors.Join(hint.Add(err, "ublk-loop upgrade gives it a new program; --socket names another socket"), lock.Close())
		}
		if flock.IsAt(lock, socket+lockSuffix) {
			return lock, nil
		}
		_ = lock.Close()
	}
}

// lockSuffix ends the name of the lock of a socket.
const lockSuffix = ".lock"

// listenAt makes a socket to which only its owner may connect. The caller removes it.
func listenAt(path string) (*net.UnixListener, error) {
	defer unix.Umask(unix.Umask(0o177))
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen at %s: %w", path, netCause(err))
	}
	l.SetUnlinkOnClose(false) // the server removes the socket, not this listener
	return l, nil
}

// listenTCP makes a socket for the metrics.
func listenTCP(address string) (*os.File, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen for metrics at %s: %w", address, netCause(err))
	}
	tcp, ok := l.(*net.TCPListener)
	if !ok {
		return nil, errors.Join(unix.EPROTOTYPE, l.Close())
	}
	socket, err := tcp.File()
	return socket, errors.Join(err, l.Close())
}

// netCause returns the cause of an error of package net, without the names of that package. A path
// that is too long for a socket is EINVAL there.
func netCause(err error) error {
	var errno unix.Errno
	var address *net.AddrError
	var lookup *net.DNSError
	switch {
	case errors.As(err, &address):
		return hint.Add(errors.New(address.Err), "an address is HOST:PORT or :PORT")
	case errors.As(err, &lookup):
		return fmt.Errorf("look up %s: %s", lookup.Name, lookup.Err)
	case errors.Is(err, unix.EINVAL):
		return hint.Add(unix.ENAMETOOLONG, "the path of a socket has at most %d bytes", maxSocketPath)
	case errors.As(err, &errno):
		return errno
	}
	return err
}

// maxSocketPath is the length of the longest path of a socket (unix(7)).
const maxSocketPath = len(unix.RawSockaddrUnix{}.Path) - 1

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

// socketIdentityLength is the length of what socketAt returns.
const socketIdentityLength = 3 * 21

// socketAt returns what tells the socket at a path from others, and an empty text if there is none. An inode number
// alone may be that of a later socket.
func socketAt(path string) string {
	var st unix.Stat_t
	if unix.Lstat(path, &st) != nil {
		return ""
	}
	return fmt.Sprintf("%20d %20d %20d\n", st.Dev, st.Ino, st.Mtim.Nano())
}

// removeSocket removes a socket with its lock, which the caller holds. If the lock is no longer at its
// path, both have been removed, and the socket can be another server's. The socket can also be that of a service
// manager, which replaces sockets and has no lock. The lock says which socket is its server's, unless a server of an
// earlier version has made it.
func removeSocket(lock *os.File, path string) {
	if lock == nil || !flock.IsAt(lock, path+lockSuffix) {
		return
	}
	made := make([]byte, socketIdentityLength)
	n, err := lock.ReadAt(made, 0)
	if n == 0 && errors.Is(err, io.EOF) || string(made[:n]) == socketAt(path) {
		_ = os.Remove(path)
	}
	_ = os.Remove(path + lockSuffix)
}
