package daemon

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/apart"
	"github.com/ublk-loop/ublk-loop/internal/confine"
	"github.com/ublk-loop/ublk-loop/internal/control"
	"github.com/ublk-loop/ublk-loop/internal/rawname"
	"github.com/ublk-loop/ublk-loop/internal/report"
	"github.com/ublk-loop/ublk-loop/loop"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// many is the process that serves many devices.
type many struct {
	version   string // of this program
	task      *manyTask
	files     descriptors
	last      predecessor
	takeovers takeovers
	log       *logger
	ctl       *ublk.Control
	devices   *loop.Server
	api       *control.Server
	collector confine.Collector
	apart     *apart.Process   // serves the requests; nil for this process
	publisher *apart.Publisher // answers the clients of --metrics; nil for this process
	// unrecovered is for the status of the server.
	unrecovered unrecovered
	queues      atomic.Int32 // number of queues of all devices
	serves      atomic.Bool  // this process serves requests itself
	// upgrade receives a channel for each request to upgrade. The channel takes the error
	// of a failed upgrade.
	upgrade chan chan<- error
	failed  chan error    // takes why devices are not served
	ending  chan struct{} // closed before the server ends
}

// runMany is the main function of the process that serves many devices.
func (p *Program) runMany(args []string) int {
	// A panic then ends the process by a signal. A supervisor takes that for a crash.
	debug.SetTraceback("crash")
	signal.Ignore(unix.SIGPIPE)
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, endSignals()...)
	nameProcess()
	task, files, err := receiveMany(args)
	if err != nil {
		report.Print(p.Err, rawname.Error(err), "")
		return report.ExitUsage
	}
	s := newMany(p.Version, task, files)
	if err := s.run(stop); err != nil {
		s.log.error("ended", err)
		report.Error(p.Err, err)
		if errors.Is(err, errNotServed) {
			return exitCrashed
		}
		return report.ExitFailed
	}
	s.log.info("ended")
	return report.ExitDone
}

func newMany(version string, task *manyTask, files descriptors) *many {
	if f := files[programFile]; f != nil { // only the supervisor needs it
		_ = f.Close()
		delete(files, programFile)
	}
	return &many{
		version: version, task: task, last: takePredecessor(task, files), files: files, log: serverLogger(files[logFile]),
		upgrade: make(chan chan<- error), failed: make(chan error, 1), ending: make(chan struct{}),
	}
}

// run serves until a signal arrives.
func (s *many) run(stop chan os.Signal) error {
	var err error
	if s.ctl, err = ublk.OpenControl(); err != nil {
		removeSocket(s.files[lockFile], s.task.Socket)
		return err
	}
	waiting, listener, err := s.begin()
	if err != nil {
		removeSocket(s.files[lockFile], s.task.Socket)
		return errors.Join(err, s.ctl.Close())
	}
	s.devices = loop.NewServer(s.ctl, loop.ServerOptions{Events: s, StopUnused: stopUnusedInChild, WriteBack: writeBackInChild, Checked: s.collector.CollectIfNeeded, Apart: s.loopApart})
	s.api = &control.Server{
		Devices: s.devices, Open: s.openPath, OpenCached: s.openCached, OpenTableDevice: s.openTableDevice, OnCrash: s.task.OnCrash, Describe: describeAdd, Hint: report.Template,
		Status: s.status, CanUpgrade: s.devices.CanEnd, Upgrade: s.askUpgrade,
		GiveKey: s.giveKey, RemoveWaiting: s.removeWaiting, Done: s.collector.Collect,
	}
	s.recoverAll(waiting)
	api := s.api.HTTP()
	served := make(chan error, 1)
	go func() { served <- control.Serve(api, listener) }()
	endMetrics, err := s.serveMetrics()
	if err != nil {
		s.log.error("serve metrics", err)
	}
	s.announce(listener)
	err = s.wait(stop, served)
	close(s.ending)
	if errors.Is(err, errNotServed) {
		s.devices.AwaitEnded(removeTimeout)
		return err // hung requests end with the process, and the next server needs the rest
	}
	_ = notify(s.files[notifyFile], "STOPPING=1")
	removeSocket(s.files[lockFile], s.task.Socket)
	// Running requests finish or are refused before the connections close.
	err = errors.Join(err, s.devices.Shutdown(), api.Close(), endMetrics())
	s.endApart()
	return errors.Join(err, s.ctl.Close())
}

// begin prepares the process, and returns the devices to take over and the socket to listen at. A
// server without /sys could not work: it would find no device.
func (s *many) begin() (waiting []loop.Status, listener *net.UnixListener, err error) {
	if err := s.prepare(); err != nil {
		return nil, nil, err
	}
	waiting, err = loop.Waiting(s.ctl)
	switch {
	case errors.Is(err, ublk.ErrNoSysfs):
		return nil, nil, err
	case err != nil:
		s.log.error("recover", err)
	}
	listener, err = listenerOf(s.files[socketFile])
	return waiting, listener, err
}

// announce tells the log, the supervisor and the service manager that this server is ready. After an upgrade, they may be
// gone, and the devices still need the server.
func (s *many) announce(listener net.Listener) {
	s.log.info("ready", logged("socket", listener.Addr().String()), logged("version", s.version))
	if s.apart != nil {
		s.apart.Settle()
	}
	for _, err := range []error{tellReady(s.files[readyFile]), notify(s.files[notifyFile], "READY=1")} {
		if err != nil {
			s.log.error("announce", err)
		}
	}
}

// prepare protects the process before it has a device or a key.
func (s *many) prepare() error {
	if _, err := confine.LockMemory(); err != nil {
		s.task.Warnings = append(s.task.Warnings, fmt.Sprintf("the server may wait for memory that its own devices have to free: %v", err))
	}
	s.startApart()
	s.startPublisher()
	if err := confine.ForbidDumps(); err != nil {
		return err
	}
	for _, w := range s.task.Warnings {
		s.log.warn(w)
	}
	s.collector.Start()
	return nil
}

// errNotServed ends the server when a thread of several devices, or the process that serves the
// requests, has failed.
var errNotServed = errors.New("devices are not served")

// wait returns when the server has to end. Until then it pings the service manager's
// watchdog, if there is one.
func (s *many) wait(stop chan os.Signal, served <-chan error) error {
	due, end := s.watchdog()
	defer end()
	for {
		select {
		case <-due:
			s.alive()
		case err := <-served:
			return err
		case err := <-s.failed:
			return fmt.Errorf("%w: %w", errNotServed, err)
		case failed := <-s.upgrade:
			err := s.replace(stop)
			s.log.error("upgrade", err)
			failed <- err
		case sig := <-stop:
			s.log.info("ending", logged("why", sig.String()))
			return nil
		}
	}
}
