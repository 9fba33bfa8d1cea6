package main

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/confine"
	"github.com/ublk-loop/ublk-loop/internal/control"
	"github.com/ublk-loop/ublk-loop/internal/report"
	"github.com/ublk-loop/ublk-loop/loop"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// manyServer is the process that serves many devices.
type manyServer struct {
	job       *serveJob
	log       *logger
	ctl       *ublk.Control
	devices   *loop.Server
	api       *control.Server
	collector confine.Collector
	queues    atomic.Int32 // of all devices
	// upgrade takes where to say why another program could not take over.
	upgrade chan chan<- error
	failed  chan error    // takes why the devices of a thread hang
	ending  chan struct{} // closed when the server is about to end
}

// manyMain is that process, from its exec on.
func manyMain(args []string) int {
	// A panic is a crash by a signal then, which a supervisor tells from an end
	// that was meant.
	debug.SetTraceback("crash")
	signal.Ignore(unix.SIGPIPE)
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, endSignals()...)
	_ = os.WriteFile("/proc/self/comm", []byte("ublk-loop"), 0)
	j, err := receiveServeJob(args)
	if err != nil {
		report.Print(os.Stderr, err.Error(), "")
		return report.ExitUsage
	}
	s := &manyServer{job: j, log: j.logger(), upgrade: make(chan chan<- error), failed: make(chan error, 1), ending: make(chan struct{})}
	if err := s.run(stop); err != nil {
		s.log.error("ended", err)
		report.Print(os.Stderr, err.Error(), report.Hint(err))
		if errors.Is(err, errThread) {
			return exitCrashed
		}
		return report.ExitFailed
	}
	s.log.info("ended")
	return report.ExitDone
}

// run serves until a signal.
func (s *manyServer) run(stop <-chan os.Signal) error {
	if _, err := confine.LockMemory(); err != nil {
		s.job.Warnings = append(s.job.Warnings, fmt.Sprintf("may wait for memory that its own devices have to free: %v", err))
	}
	if err := confine.ForbidDumps(); err != nil {
		return err
	}
	for _, w := range s.job.Warnings {
		s.log.warn(w)
	}
	s.collector.Start()
	confine.ReserveProcessors(runtime.NumCPU())
	var err error
	if s.ctl, err = ublk.OpenControl(); err != nil {
		return err
	}
	listener, err := s.job.listener()
	if err != nil {
		return errors.Join(err, s.ctl.Close())
	}
	s.devices = loop.NewServer(s.ctl, loop.ServerOptions{Events: s, StopUnused: stopUnusedInChild, Looked: s.collector.CollectIfNeeded})
	s.api = &control.Server{
		Devices: s.devices, Open: s.openPath, OnCrash: s.job.OnCrash, Describe: describeAdd, Hint: report.Template,
		Status: s.status, CanUpgrade: s.devices.CanEnd, Upgrade: s.askUpgrade, Done: s.collector.Collect,
	}
	s.recoverAll()
	api, metrics := s.api.HTTP(), s.api.MetricsHTTP()
	served := make(chan error, 1)
	go func() { served <- control.Serve(api, listener) }()
	if err := s.serveMetrics(metrics); err != nil {
		s.log.error("no metrics", err)
	}
	s.log.info("ready", logged("socket", listener.Addr().String()), logged("version", moduleVersion()))
	if err = notify(s.job.notify, "READY=1"); err == nil {
		err = s.wait(stop, served)
	}
	close(s.ending)
	if errors.Is(err, errThread) {
		return err // what hangs ends with the process, and what takes its place needs the rest
	}
	_ = notify(s.job.notify, "STOPPING=1")
	s.job.removeSocket()
	// Requests that are under way are refused or come to their end first.
	return errors.Join(err, s.devices.Shutdown(), api.Close(), metrics.Close(), s.ctl.Close())
}

// serveMetrics answers at the address of --metrics, if there is one, until h is
// closed. Devices are served on whatever becomes of that.
func (s *manyServer) serveMetrics(h *http.Server) error {
	if s.job.metrics == nil {
		return nil
	}
	listener, err := net.FileListener(s.job.metrics)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	go func() {
		if err := control.ServeMetrics(h, listener); err != nil {
			s.log.error("no metrics", err)
		}
	}()
	s.log.info("metrics", logged("address", listener.Addr().String()))
	return nil
}

// errThread is what the server ends with when a thread of several devices has
// failed.
var errThread = errors.New("a thread has failed")

// exitCrashed is its exit status then.
const exitCrashed = 4

// wait returns when the server is to end. Until then it tells the service
// manager, as often as that wants, that there is somebody who can.
func (s *manyServer) wait(stop <-chan os.Signal, served <-chan error) error {
	due, end := s.watchdog()
	defer end()
	for {
		select {
		case <-due:
			s.alive()
		case err := <-served:
			return err
		case err := <-s.failed:
			return fmt.Errorf("%w: %w", errThread, err)
		case failed := <-s.upgrade:
			err := s.replace()
			s.log.error("not upgraded", err)
			failed <- err
		case sig := <-stop:
			s.log.info("ending", logged("why", sig.String()))
			return nil
		}
	}
}

// watchdog tells the service manager that the server is alive, and returns what
// says when to tell it again, until end is called.
func (s *manyServer) watchdog() (due <-chan time.Time, end func()) {
	if s.job.Watchdog == 0 {
		return nil, func() {}
	}
	s.alive()
	ticker := time.NewTicker(s.job.Watchdog)
	return ticker.C, ticker.Stop
}

// alive tells the service manager that the server is, if that wants to know.
func (s *manyServer) alive() {
	if s.job.Watchdog == 0 {
		return
	}
	if err := notify(s.job.notify, "WATCHDOG=1"); err != nil {
		s.log.error("watchdog", err)
	}
}

// recoverAll takes over the devices of a server that is no more. What goes wrong
// of one is logged, and concerns no other.
func (s *manyServer) recoverAll() {
	waiting, err := loop.Waiting(s.ctl)
	if err != nil {
		s.log.error("recover", err)
		return
	}
	done := make(chan struct{})
	for i := range waiting {
		go func() {
			defer func() { done <- struct{}{} }()
			if err := s.recover(&waiting[i]); err != nil {
				s.log.of(waiting[i].ID).error("not recovered", err)
			}
		}()
	}
	due, end := s.watchdog()
	defer end()
	for n := 0; n < len(waiting); {
		select {
		case <-done:
			n++
		case <-due:
			s.alive()
		}
	}
	s.job.closeDevices()
}

func (s *manyServer) recover(device *loop.Status) error {
	file, err := s.fileOf(device)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	if _, err = s.devices.Recover(device.ID, file, nil); err != nil {
		return err
	}
	if holder, held := s.job.holders[device.ID]; held {
		return s.api.Adopt(device.ID, holder)
	}
	s.devices.Release(device.ID)
	return nil
}

// fileOf returns a device's file: the one that the last server had, where that has
// handed it over, or what has its name.
func (s *manyServer) fileOf(device *loop.Status) (*os.File, error) {
	handed := s.job.files[device.ID]
	if handed == nil {
		return s.openPath(device.File)
	}
	fd, err := unix.FcntlInt(handed.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(uintptr(fd), device.File), nil
}

// openPath opens a file as of the root that serve was started with.
func (s *manyServer) openPath(path string) (*os.File, error) {
	return loop.OpenPathIn(s.job.root, path)
}

var _ loop.Events = (*manyServer)(nil)

// Serving implements loop.Events. There is room for one more device already when
// that comes.
func (s *manyServer) Serving(status loop.Status, recovered bool) {
	confine.ReserveProcessors(runtime.NumCPU() + int(s.queues.Add(int32(status.Queues))))
	message := "serving"
	if recovered {
		message = "recovered"
	}
	s.log.of(status.ID).info(message, logged("device", status.Device), logged("file", status.File),
		logged("buffer_mode", status.BufferMode), loggedBool("direct_io", status.DirectIO))
}

// Ended implements loop.Events.
func (s *manyServer) Ended(status loop.Status, err error) {
	s.queues.Add(-int32(status.Queues))
	if err != nil {
		s.log.of(status.ID).error("ended", err)
		return
	}
	s.log.of(status.ID).info("ended")
}

// Slow implements loop.Events. The other devices are served on, and commands
// about them are not held up.
func (s *manyServer) Slow(device, what string) {
	s.log.warn(fmt.Sprintf("%s %s: takes long; the disk below may hang, or the kernel has lost a command: "+
		"dmesg, and echo w > /proc/sysrq-trigger, show what is blocked", what, device))
}

// Failed implements loop.Events.
func (s *manyServer) Failed(err error) {
	select {
	case s.failed <- err:
	default: // one is enough to end for
	}
}

// listener returns the listener of the job's socket.
func (j *serveJob) listener() (*net.UnixListener, error) {
	l, err := net.FileListener(j.socket)
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
func (j *serveJob) removeSocket() {
	if j.Socket == "" {
		return
	}
	_ = os.Remove(j.Socket)
	_ = os.Remove(j.Socket + ".lock")
}

// logger returns the server's log: a file that was asked for, else standard
// error.
func (j *serveJob) logger() *logger {
	if j.log == nil {
		return newServerLogger(os.Stderr)
	}
	_ = debug.SetCrashOutput(j.log, debug.CrashOptions{})
	return newServerLogger(j.log)
}
