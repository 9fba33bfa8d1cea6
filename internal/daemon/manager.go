package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/internal/report"
	"github.com/ublk-loop/ublk-loop/internal/systemd"
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

// unitTimeout bounds how long add waits for systemd, which takes some milliseconds unless
// it hangs.
const unitTimeout = 5 * time.Second

// unitMaker gives the server of a device a unit of its own, so that the server ends
// neither with the unit or session that add runs in, nor before what is mounted from the
// device. Without systemd the server stays where it is.
//
// Its connection is made while the server starts.
type unitMaker struct {
	connected chan struct{} // closed when manager and err are set
	manager   *systemd.Manager
	err       error
	cancel    context.CancelFunc // ends the connection
	ctx       context.Context
}

// newUnitMaker returns at once.
func newUnitMaker(ctx context.Context) *unitMaker {
	u := &unitMaker{connected: make(chan struct{})}
	u.ctx, u.cancel = context.WithCancel(ctx)
	go func() { // ends with the connection, or with the context
		u.manager, u.err = systemd.Connect(u.ctx)
		close(u.connected)
	}()
	return u
}

// close ends the connection. It does nothing without a unitMaker.
func (u *unitMaker) close() {
	if u != nil {
		u.cancel()
	}
}

// enter starts to make the unit, and returns at once. The returned function waits for the
// result and returns warnings.
func (u *unitMaker) enter(pids []int, device *client.Device) (wait func() []string) {
	result := make(chan error, 1)
	go func() { // ends within unitTimeout
		ctx, cancel := context.WithTimeout(u.ctx, unitTimeout)
		defer cancel()
		result <- u.start(ctx, unitOf(pids, device))
	}()
	return func() []string {
		err := <-result
		if err == nil || errors.Is(err, systemd.ErrNotRunning) {
			return nil
		}
		return []string{fmt.Sprintf("the server has no unit of its own and ends with the unit or session of add: %v", err)}
	}
}

func (u *unitMaker) start(ctx context.Context, scope *systemd.Scope) error {
	select {
	case <-u.connected:
	case <-ctx.Done():
		return fmt.Errorf("connect to systemd: %w", context.Cause(ctx))
	}
	if u.err != nil {
		return u.err
	}
	return u.manager.Start(ctx, scope)
}

// unitOf describes the unit of a server, whose process is the first. Its name has the pid,
// because the unit of an earlier server of the device may still exist.
func unitOf(pids []int, device *client.Device) *systemd.Scope {
	scope := &systemd.Scope{
		Name:        fmt.Sprintf("ublk-loop-%s-%d.scope", strings.TrimPrefix(device.Device, "/dev/"), pids[0]),
		Description: fmt.Sprintf("%s of %s", device.Device, report.OneLine(device.File)),
		PIDs:        pids,
		Device:      device.Device,
	}
	for _, path := range devicePaths(device) {
		if isUnitPath(path) {
			scope.Paths = append(scope.Paths, path)
		}
	}
	return scope
}

// devicePaths returns the files and disks of a device.
func devicePaths(device *client.Device) []string {
	if len(device.Files) == 0 {
		return []string{device.File}
	}
	var paths []string
	for i := range device.Files {
		paths = append(paths, device.Files[i].File)
	}
	return paths
}

// isUnitPath reports whether a path names a file that exists, in a form that systemd takes.
// A file that was unlinked has no path, and one that was not UTF-8 has another one.
func isUnitPath(path string) bool {
	if !strings.HasPrefix(path, "/") || report.OneLine(path) != path {
		return false
	}
	_, err := os.Stat(path)
	return err == nil
}

// openJournal returns a connection to systemd's journal for a server without a log file,
// or nil if there is none.
func openJournal() *os.File {
	journal, err := systemd.OpenJournal()
	if err != nil {
		return nil
	}
	return journal
}
