package daemon

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/apart"
	"github.com/ublk-loop/ublk-loop/internal/confine"
	"github.com/ublk-loop/ublk-loop/internal/control"
	"github.com/ublk-loop/ublk-loop/internal/report"
	"github.com/ublk-loop/ublk-loop/loop"
	"github.com/ublk-loop/ublk-loop/ublk/uapi"
)

// removeTimeout bounds the time that the server takes to remove devices whose process has ended. What it
// leaves is as after a kill.
const removeTimeout = 5 * time.Second

// startApart starts the process that serves the requests of all devices. Without the privileges or
// the kernel's features for a sandbox the server itself serves them. It keeps the privileges for the program
// that replaces it.
func (s *many) startApart() {
	reap(s.task.Apart)
	s.task.Apart = 0
	err := errors.Join(s.last.mayHang(), s.checkDriver())
	if err == nil {
		s.apart, err = startSandbox(apartManyRole, nil)
	}
	if err != nil {
		s.log.info("requests are served without a sandbox", logged("why", err.Error()))
		s.prepareToServe()
		return
	}
	s.task.Apart = s.apart.Pid()
	go func() { // ends with the process
		if err := s.apart.AwaitRingless(); err != nil {
			s.log.error("make rings for the process that serves the requests", err)
		}
	}()
	go func() { // ends with the process
		<-s.apart.Ended()
		s.Failed(fmt.Errorf("process that serves the requests: %w", s.apart.Err()))
	}()
}

// checkDriver returns an error if the driver may lose a request when the queues of a device end and the
// server does not, as in an upgrade. Drivers without that fault also have UBLK_F_QUIESCE.
func (s *many) checkDriver() error {
	features, err := s.ctl.Features()
	if err == nil && !features.Has(uapi.UBLK_F_QUIESCE) {
		err = fmt.Errorf("without UBLK_F_QUIESCE an upgrade may lose a request: %w", errors.ErrUnsupported)
	}
	return err
}

// reap removes what the kernel keeps of a process of the program that this one has replaced.
func reap(pid int) {
	if pid == 0 {
		return
	}
	go func() { // the exec has killed it
		_, _ = unix.Wait4(pid, nil, 0, nil)
	}()
}

// mayHang returns an error if the start of a process may never end. A new process has copies of all open files
// until its exec closes them. Without files of the last program that does not wait for others.
func (p predecessor) mayHang() error {
	for _, h := range p {
		for _, passed := range h.passed {
			if passed.File != nil && loop.ClosesRemotely(passed.File) {
				return fmt.Errorf("the file system of %s, a file of the last program, may not answer a close: %w", passed.File.Name(), errors.ErrUnsupported)
			}
		}
	}
	return nil
}

// prepareToServe keeps this process from waiting for processors when it serves requests. There is room for
// one more device already when that comes.
func (s *many) prepareToServe() {
	s.serves.Store(true)
	confine.ReserveProcessors(runtime.NumCPU() + int(s.queues.Load()))
}

// loopApart returns the process for another device, as package loop takes it.
func (s *many) loopApart() loop.Apart {
	if s.apart == nil {
		return nil
	}
	return apartOfMany{s.apart.Device(), s}
}

// apartOfMany is the process for a device.
type apartOfMany struct {
	*apart.Device
	server *many
}

var _ loop.Apart = apartOfMany{}

// Unused implements loop.Apart.
func (a apartOfMany) Unused() { a.server.prepareToServe() }

// endApart ends the process, when it has no device that this server still owns.
func (s *many) endApart() {
	if s.apart != nil {
		s.apart.Abandon()
	}
}

// runApartMany is the main function of that process.
func (p *Program) runApartMany(_ []string) int {
	var collector confine.Collector
	var program *confine.Program
	return runApart(apart.Hooks{
		Prepare: func() (err error) {
			collector.Start()
			program, err = confine.LockMemory()
			return err
		},
		Queues: func(n int) error {
			confine.ReserveProcessors(runtime.NumCPU() + n)
			return nil
		},
		Settled: func() {
			program.GiveBack()
			time.AfterFunc(quietAfter, program.FreeConstants)
		},
		Answered: collector.Collect,
	})
}

// startPublisher starts the process that answers the clients of --metrics, so that this process parses
// nothing of theirs. Otherwise this process answers them itself.
func (s *many) startPublisher() {
	reap(s.task.Publisher)
	s.task.Publisher = 0
	listener := s.files[metricsFile]
	if listener == nil {
		return
	}
	if err := unix.Listen(int(listener.Fd()), unix.SOMAXCONN); err != nil { // after refuseClients of the last program
		s.log.error("listen for metrics", err)
	}
	err := s.last.mayHang()
	if err == nil {
		s.publisher, err = apart.StartPublisher(selfPath, []string{"ublk-loop", metricsRole.name}, serverEnv(os.Environ()), listener)
	}
	if err != nil {
		s.log.info("metrics are served without a sandbox", logged("why", err.Error()))
		return
	}
	s.task.Publisher = s.publisher.Pid()
	// The devices do without it, and others decide how much it has to do.
	if err := confine.LeaveToOOM(s.publisher.Pid()); err != nil {
		s.log.error("leave the process for clients to the OOM killer", err)
	}
}

// serveMetrics answers at the address of --metrics, if one is given, until end is called. Its failure does not
// affect the devices.
func (s *many) serveMetrics() (end func() error, err error) {
	nothing := func() error { return nil }
	if s.files[metricsFile] == nil {
		return nothing, nil
	}
	listener, err := net.FileListener(s.files[metricsFile])
	if err != nil {
		return nothing, fmt.Errorf("listen: %w", err)
	}
	s.log.info("metrics", logged("address", listener.Addr().String()))
	if s.publisher != nil {
		go s.publish() // ends with the process
		return func() error { s.publisher.End(); return nil }, listener.Close()
	}
	h := control.MetricsHTTP(func() ([]byte, error) {
		defer s.collector.Collect()
		return s.api.Metrics(), nil
	})
	go func() { // ends when h is closed
		if err := control.ServeMetrics(h, listener); err != nil {
			s.log.error("serve metrics", err)
		}
	}()
	return h.Close, nil
}

// publish gives the metrics to the process for their clients.
func (s *many) publish() {
	err := s.publisher.Publish(s.api.Metrics, s.collector.Collect)
	select {
	case <-s.ending:
	default:
		s.log.error("serve metrics", errors.Join(err, refuseClients(s.files[metricsFile])))
	}
}

// refuseClients makes the kernel refuse the clients of a listener that no process answers. Otherwise they would wait
// without end, because the next program needs the listener, which therefore stays open.
func refuseClients(listener *os.File) error {
	return os.NewSyscallError("shutdown", unix.Shutdown(int(listener.Fd()), unix.SHUT_RD))
}

// metricsGC is how much garbage the process for the clients of --metrics may have before Go collects it, in percent of 4 MiB
// (GOGC in package runtime). Without it, every server would have 4 MiB more after some texts.
const metricsGC = 15

// runMetrics is the main function of the process for the clients of --metrics.
func (p *Program) runMetrics(_ []string) int {
	signal.Ignore(unix.SIGINT, unix.SIGTERM, unix.SIGHUP) // the server ends it
	nameProcess()
	debug.SetGCPercent(metricsGC)
	err := apart.RunPublisher(func(file *os.File, metrics func() ([]byte, error)) error {
		listener, err := net.FileListener(file)
		if err := errors.Join(err, file.Close()); err != nil {
			return err
		}
		return control.ServeMetrics(control.MetricsHTTP(metrics), listener)
	})
	if err != nil {
		return report.ExitFailed
	}
	return report.ExitDone
}
