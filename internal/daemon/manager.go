package daemon

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// openNotify connects to the service manager's socket (sd_notify(3)). It returns nil if
// name is empty. A name that starts with @ denotes an abstract socket.
func openNotify(name string) (*os.File, error) {
	if name == "" {
		return nil, nil
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make socket: %w", err)
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: name}); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("connect to NOTIFY_SOCKET %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// notify sends a state to the service manager, if there is one.
func notify(manager *os.File, state string) error {
	if manager == nil {
		return nil
	}
	if _, err := manager.WriteString(state); err != nil {
		return fmt.Errorf("notify the service manager: %w", err)
	}
	return nil
}
