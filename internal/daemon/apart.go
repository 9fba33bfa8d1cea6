package daemon

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/apart"
	"github.com/ublk-loop/ublk-loop/internal/confine"
	"github.com/ublk-loop/ublk-loop/internal/process"
	"github.com/ublk-loop/ublk-loop/internal/rawname"
	"github.com/ublk-loop/ublk-loop/internal/report"
	"github.com/ublk-loop/ublk-loop/loop"
)

// startApart starts the process that serves the requests, and gives up what the server needs only for
// that. Without the privileges or the kernel's features for a sandbox the server itself serves them.
// It also does so for a device whose partitions the kernel looks for.
func (s *single) startApart() {
	if !s.config.PartScan {
		s.apart, s.whyAlone = startSandbox(apartRole, s.files[lifelineFile])
	}
	if s.apart == nil {
		s.prepareToServe()
	}
	if err := confine.DropStarting(); err != nil {
		s.task.Warnings = append(s.task.Warnings, rawname.Error(err))
	}
}

var (
	errRootStorage = errors.New("systemd ends processes of other users than root at a shutdown")
	errLockLimit   = errors.New("the process could not lock all of its memory (RLIMIT_MEMLOCK)")
)

// startSandbox starts the process, with a role, if the server may have one.
func startSandbox(r role, lifeline *os.File) (*apart.Process, error) {
	if process.SurvivesShutdown(os.Getpid()) {
		return nil, errRootStorage
	}
	// A limit does not hold for the server itself, which has CAP_IPC_LOCK.
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit); err != nil || limit.Cur != unix.RLIM_INFINITY {
		return nil, errors.Join(errLockLimit, err)
	}
	return apart.Start(selfPath, []string{"ublk-loop", r.name}, serverEnv(os.Environ()), lifeline)
}

// prepareToServe keeps the server from waiting for memory or processors, if it serves the requests.
func (s *single) prepareToServe() {
	confine.ReserveProcessors(cmp.Or(s.config.Queues, runtime.NumCPU()))
	var err error
	if s.program, err = confine.LockMemory(); err != nil {
		s.task.Warnings = append(s.task.Warnings, fmt.Sprintf("the server may wait for memory that its own device has to free: %v", err))
	}
}

// loopApart returns the process as package loop takes it.
func (s *single) loopApart() loop.Apart {
	if s.apart == nil {
		return nil
	}
	return apartOfLoop{s.apart, s}
}

// apartOfLoop is the process for package loop.
type apartOfLoop struct {
	*apart.Process
	server *single
}

var _ loop.Apart = apartOfLoop{}

// Unused implements loop.Apart.
func (a apartOfLoop) Unused() {
	a.server.endApart()
	a.server.prepareToServe()
}

// endApart ends a process without work.
func (s *single) endApart() {
	if s.apart != nil {
		s.apart.Abandon()
		s.apart = nil
	}
}

// settle frees what only the start has needed, here and then in the other process.
func (s *single) settle() {
	confine.QuietGC()
	if f := s.files[lifelineFile]; f != nil {
		_ = f.Close()
	}
	if s.apart == nil {
		s.program.GiveBack()
		time.AfterFunc(quietAfter, s.program.FreeConstants)
		return
	}
	s.apart.Settle()
	free := func() { _ = confine.FreeProgram() } // an error costs only memory
	free()
	time.AfterFunc(quietAfter, free)
}

// quietAfter is how long after the start of a device its last goroutines and Go's runtime may still use what the start has
// used. They take up to 800 KiB of the program's constants in each process, which is then free again.
const quietAfter = 2 * time.Second

// runApartSingle is the main function of that process.
func (p *Program) runApartSingle(_ []string) int {
	var program *confine.Program
	return runApart(apart.Hooks{
		Prepare: func() (err error) {
			program, err = confine.LockMemory()
			return err
		},
		Queues: func(n int) error {
			confine.ReserveProcessors(n)
			return nil
		},
		Settled: func() {
			confine.QuietGC()
			program.GiveBackControl()
			time.AfterFunc(quietAfter, program.FreeConstants)
		},
		Answered: apart.Nothing,
	})
}

// runApart is a process that serves requests.
func runApart(h apart.Hooks) int {
	signal.Ignore(unix.SIGINT, unix.SIGTERM, unix.SIGHUP) // the server ends it
	nameProcess()
	if err := apart.Run(h); err != nil {
		return report.ExitFailed
	}
	return report.ExitDone
}
