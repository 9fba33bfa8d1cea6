package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/internal/report"
	"github.com/ublk-loop/ublk-loop/internal/systemd"
)

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
func (u *unitMaker) enter(pid int, device *client.Device) (wait func() []string) {
	result := make(chan error, 1)
	go func() { // ends within unitTimeout
		ctx, cancel := context.WithTimeout(u.ctx, unitTimeout)
		defer cancel()
		result <- u.start(ctx, unitOf(pid, device))
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

// unitOf describes the unit of a server. Its name has the pid, because the unit of an
// earlier server of the device may still exist.
func unitOf(pid int, device *client.Device) *systemd.Scope {
	scope := &systemd.Scope{
		Name:        fmt.Sprintf("ublk-loop-%s-%d.scope", strings.TrimPrefix(device.Device, "/dev/"), pid),
		Description: fmt.Sprintf("%s of %s", device.Device, report.OneLine(device.File)),
		PID:         pid,
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
