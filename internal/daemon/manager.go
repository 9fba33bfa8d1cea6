package daemon

import (
	"fmt"
	"os"
	"strconv"
	"time"

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

// watchdog pings the service manager's watchdog once. The returned channel says when the
// next pings are due, until end is called.
func (s *many) watchdog() (due <-chan time.Time, end func()) {
	if s.task.Watchdog == 0 {
		return nil, func() {}
	}
	s.alive()
	ticker := time.NewTicker(s.task.Watchdog)
	return ticker.C, ticker.Stop
}

// alive pings the service manager's watchdog, if there is one.
func (s *many) alive() {
	if s.task.Watchdog == 0 {
		return
	}
	if err := notify(s.files[notifyFile], "WATCHDOG=1"); err != nil {
		s.log.error("watchdog", err)
	}
}

// watchdogPeriod returns the interval between pings: half of the time after which the
// service manager ends a silent process (sd_watchdog_enabled(3)). It returns 0 if the
// service manager expects no pings.
func watchdogPeriod(getenv func(string) string, pid int) (time.Duration, error) {
	text := getenv("WATCHDOG_USEC")
	if owner := getenv("WATCHDOG_PID"); text == "" || owner != "" && owner != strconv.Itoa(pid) {
		return 0, nil
	}
	usec, err := strconv.ParseUint(text, 10, 53)
	if err != nil || usec == 0 {
		return 0, fmt.Errorf("WATCHDOG_USEC is %q: %w", text, unix.EINVAL)
	}
	return time.Duration(usec) * time.Microsecond / 2, nil
}
