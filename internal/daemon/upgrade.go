package daemon

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/internal/control"
	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/loop"
	"github.com/ublk-loop/ublk-loop/transfer"
	"github.com/ublk-loop/ublk-loop/ublk/uapi"
)

// freezeTimeout bounds the time that an upgrade waits for running additions and removals
// of devices, and then for running takeovers. During this time the server answers no other
// request.
const freezeTimeout = 5 * time.Second

// holdTimeout bounds the time that an upgrade waits for the files of devices, and then
// for the requests that are running. New requests wait while the running ones end.
const holdTimeout = 3 * time.Second

// askUpgrade replaces this program with the installed one. It returns only if that fails.
func (s *many) askUpgrade() error {
	failed := make(chan error, 1)
	select {
	case s.upgrade <- failed:
		return <-failed
	case <-s.ending:
		return errEnding
	}
}

// status returns the status of the server itself.
func (s *many) status() client.ServerStatus {
	devices, err := loop.List(s.ctl)
	if err != nil {
		s.log.error("list", err) // without devices, none is unrecovered
	}
	features, err := s.ctl.Features()
	if err != nil {
		s.log.error("features", err) // without features, a client is told of none
	}
	return client.ServerStatus{
		Version: s.version, PID: os.Getpid(), Generation: s.task.Generation, Devices: s.devices.Len(),
		Unrecovered: s.unrecovered.among(devices), Resizes: features.Has(uapi.UBLK_F_UPDATE_SIZE),
	}
}

// replace executes the program of serve in place of this one. It returns only if that
// fails, and has then changed nothing.
//
// The kernel ends the queues together with this program's threads, as when a process is
// killed. That path is better tested in all kernels. The queues must not end first,
// because Linux 6.12 may then lose a request for good.
func (s *many) replace(stop chan os.Signal) error {
	program, err := s.openProgram()
	if err != nil {
		return err
	}
	defer func() { _ = program.Close() }()
	s.alive() // here and below: each part may take seconds, and the last ping was long ago
	if err := s.api.Freeze(freezeTimeout); err != nil {
		return &hint.Error{Err: err, Hint: "try again; if something hangs, the log says what"}
	}
	defer s.api.Thaw()
	s.alive()
	p := predecessor{}
	thaw, err := s.takeovers.freeze(freezeTimeout, p) // before the hold, which a device that comes later would not have
	if err != nil {
		return err
	}
	defer thaw()
	s.alive()
	resume, err := s.hold()
	if err != nil {
		return err
	}
	defer resume()
	holders, err := s.api.Holders()
	defer closeHolders(holders)
	if err != nil {
		return fmt.Errorf("keep leases: %w", err)
	}
	keys, err := s.devices.PassKeys()
	if err != nil {
		return fmt.Errorf("pass on the keys: %w", err)
	}
	defer closeKeys(keys)
	p.addOwn(s.devices.Pass(), holders, keys)
	done, err := p.pipeKeys()
	if err != nil {
		return err
	}
	defer done()
	return s.execute(program, p, stop)
}

// hold makes the devices keep their requests, if all of them outlive an upgrade.
func (s *many) hold() (resume func(), err error) {
	if err := s.devices.CanEnd(); err != nil {
		return nil, err
	}
	return s.devices.Hold(holdTimeout)
}

// errEnding is returned to those who want an upgrade when the server ends.
var errEnding = errors.New("the server is about to end")

// execute executes a program that takes over everything from this server. The program would not know of a
// signal that this one has received at stop, so that execute then returns an error. A later signal kills the process.
func (s *many) execute(program *os.File, p predecessor, stop chan os.Signal) error {
	signal.Stop(stop)
	defer signal.Notify(stop, endSignals()...)
	if len(stop) > 0 {
		return errEnding
	}
	next := *s.task
	next.Generation++
	next.Warnings = nil
	files := maps.Clone(s.files)
	p.passOn(&next, files)
	s.log.info("ending", logged("why", "upgrade"))
	s.alive() // gives the next program the full watchdog interval
	return launchMany(manyRole, &next, files).execute(fmt.Sprintf("/proc/self/fd/%d", program.Fd()), nil)
}

func closeKeys(keys map[uint32]*transfer.Secret) {
	for _, key := range keys {
		key.Close()
	}
}

func closeHolders(holders map[uint32]control.Holder) {
	for _, h := range holders {
		if h.Conn != nil {
			_ = h.Conn.Close()
		}
	}
}

// openProgram opens the program at the path from which serve was started.
func (s *many) openProgram() (*os.File, error) {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT}
	fd, err := unix.Openat2(int(s.files[rootFile].Fd()), s.task.Program, &how)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", s.task.Program, err)
	}
	return os.NewFile(uintptr(fd), s.task.Program), nil
}
