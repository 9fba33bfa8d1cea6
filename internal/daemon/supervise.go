package daemon

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/confine"
	"github.com/ublk-loop/ublk-loop/internal/rawname"
	"github.com/ublk-loop/ublk-loop/internal/report"
)

// runSupervisor is the main function of the supervisor. It has the privileges of the server, because the server inherits
// its own from it, and is protected like a server: when memory is short, it may have to start one.
func (p *Program) runSupervisor(args []string) int {
	signal.Ignore(unix.SIGPIPE)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, endSignals()...)
	nameProcess()
	task := &manyTask{}
	files, err := receive(superRole, args, task)
	if err != nil {
		report.Print(p.Err, rawname.Error(err), "")
		return report.ExitUsage
	}
	task.decodeNames()
	if _, err := confine.LockMemory(); err != nil {
		task.Warnings = append(task.Warnings, fmt.Sprintf("the supervisor may wait for memory that devices of its server have to free: %v", err))
	}
	confine.QuietGC()
	err = supervise(launchMany(manyRole, task, files), serverLogger(files[logFile]), signals)
	if err == nil {
		return report.ExitDone
	}
	removeSocket(files[lockFile], task.Socket)
	if !errors.Is(err, report.ErrReported) {
		report.Error(p.Err, err)
	}
	return report.ExitFailed
}

// supervise runs a server of many devices in another process. If the server crashes or is
// killed, supervise starts another server, which takes over the devices. That server runs
// the program that was ready last, because an upgrade may have replaced the first one. If
// the server ends in any other way, supervise ends with the same result. It passes the end
// signals on to the server.
func supervise(l *launch, log *logger, signals <-chan os.Signal) error {
	ready, err := newReadyPrograms()
	if err != nil {
		return err
	}
	l.files[readyFile] = ready.tell
	s := &supervisor{
		start: func() (*os.Process, error) { return l.start(os.Stderr) }, renew: func() error { return ready.update(l) },
		ready: ready.told, signals: signals, log: log,
	}
	return s.run()
}

// supervisor runs servers, one after another.
//
// An end signal ends it with its server. If there is no server at that time, or if the server crashes then, its
// devices wait. Therefore the supervisor starts one more server, which takes them over, and ends that one.
type supervisor struct {
	start   func() (*os.Process, error) // starts a server
	renew   func() error                // called when a server has ended; ready has its last message then
	ready   <-chan struct{}             // receives when a server obeys signals
	signals <-chan os.Signal
	log     *logger
	asked   os.Signal // the last signal, nil for none
	isReady bool      // the present server has become ready
	served  bool      // a server has been ready
}

func (s *supervisor) run() error {
	for pause := time.Duration(0); ; pause = nextPause(pause) {
		started, isLast := time.Now(), s.asked != nil
		ended, err := s.runOne()
		switch {
		case err != nil && !s.served:
			return err
		case err == nil && s.isOver(ended):
			return exitError(ended.ExitCode())
		case err == nil:
			err = errors.New(ended.String())
		}
		if isLast {
			return fmt.Errorf("%w; its devices wait for another server", err)
		}
		s.log.error("server", fmt.Errorf("%w; starting another server", err))
		if time.Since(started) > longestRestart {
			pause = 0
		}
		if s.asked != nil {
			continue
		}
		select {
		case <-time.After(pause):
		case s.asked = <-s.signals:
		}
	}
}

// isOver reports whether no other server has to follow one that has ended. If the devices of a server that
// crashed wait, a successor that does not become ready has another one.
func (s *supervisor) isOver(ended *os.ProcessState) bool {
	waiting := s.served && !s.isReady && ended.ExitCode() != report.ExitDone
	return !crashed(ended) && !waiting
}

// crashed reports whether a server has left its devices for another server.
func crashed(ended *os.ProcessState) bool { return !ended.Exited() || ended.ExitCode() == exitCrashed }

// longestRestart limits the pause between two servers. A server that runs for longer
// resets the pause.
const longestRestart = 5 * time.Second

func nextPause(last time.Duration) time.Duration {
	return min(max(2*last, 10*time.Millisecond), longestRestart)
}

// runOne starts a server and waits for its end. It returns an error if there is no server.
//
// It passes signals on to the server. The first signal of all waits until the server is ready, because it would
// kill a server that does not expect it yet. A second one does not wait.
func (s *supervisor) runOne() (*os.ProcessState, error) {
	s.isReady = false
	process, err := s.start()
	if err != nil {
		return nil, fmt.Errorf("start server: %w", err)
	}
	type end struct {
		state *os.ProcessState
		err   error
	}
	ended := make(chan end, 1)
	go func() { // the code below waits for it
		state, err := process.Wait()
		ended <- end{state, err}
	}()
	for {
		var waits bool
		select {
		case sig := <-s.signals:
			waits = s.asked == nil && !s.isReady
			s.asked = sig
		case <-s.ready:
			s.isReady, s.served = true, true
			waits = s.asked == nil // there is nothing to pass on yet
		case e := <-ended:
			return e.state, errors.Join(e.err, s.afterEnd())
		}
		if !waits {
			_ = process.Signal(s.asked) // fails only if the server has ended
		}
	}
}

// afterEnd takes the last messages of a server that has ended.
func (s *supervisor) afterEnd() error {
	err := s.renew()
	select {
	case <-s.ready:
		s.isReady, s.served = true, true
	default:
	}
	return err
}

// exitError returns nil if a server ended in order. Otherwise the server has already
// reported its error.
func exitError(code int) error {
	if code == report.ExitDone {
		return nil
	}
	return report.ErrReported
}

// These are the names of the descriptors between a supervisor and its server.
const (
	readyFile   = "ready"   // the server sends its program there
	programFile = "program" // the program that the supervisor executes
)

// readyPrograms receives the programs of the servers that have become ready. Each server
// sends a descriptor, because the path of its program may lead to another one by now.
type readyPrograms struct {
	tell  *os.File
	heard *net.UnixConn
	last  chan *os.File // takes the answers of receive to questions
	told  chan struct{} // receives when a server has become ready
}

func newReadyPrograms() (*readyPrograms, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	r := &readyPrograms{tell: os.NewFile(uintptr(fds[1]), readyFile), last: make(chan *os.File), told: make(chan struct{}, 1)}
	f := os.NewFile(uintptr(fds[0]), readyFile)
	defer func() { _ = f.Close() }()
	conn, err := net.FileConn(f)
	if err != nil {
		return nil, errors.Join(err, r.tell.Close())
	}
	r.heard, _ = conn.(*net.UnixConn)
	go r.receive() // ends with the process
	return r, nil
}

// receive keeps the last program that a server has sent, until it gives it to a caller of ask.
// A message without a program is a question for it.
func (r *readyPrograms) receive() {
	var program *os.File
	for {
		oob := make([]byte, unix.CmsgSpace(4))
		_, n, _, _, err := r.heard.ReadMsgUnix(make([]byte, 1), oob)
		switch {
		case err != nil:
			close(r.last)
			return
		case n == 0:
			r.last <- program
			program = nil
			continue
		}
		if program != nil {
			_ = program.Close()
		}
		program = programOf(oob[:n])
		select {
		case r.told <- struct{}{}:
		default: // the supervisor has not noticed the last server yet
		}
	}
}

// programOf returns the descriptor of a message (SCM_RIGHTS in unix(7)), nil without one.
func programOf(oob []byte) *os.File {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return nil
	}
	return os.NewFile(uintptr(fds[0]), programFile)
}

// update makes the program that was ready last the one that a launch executes.
func (r *readyPrograms) update(l *launch) error {
	program, err := r.ask()
	if err != nil || program == nil {
		return err
	}
	if old := l.files[programFile]; old != nil {
		_ = old.Close()
	}
	l.files[programFile] = program
	return nil
}

// ask returns the program of the last server that became ready since the last call, or nil. It
// belongs to the caller.
func (r *readyPrograms) ask() (*os.File, error) {
	// Messages arrive in order, so those of the servers that have ended come before this one.
	if _, err := r.tell.Write([]byte{0}); err != nil {
		return nil, fmt.Errorf("find the last program: %w", err)
	}
	return <-r.last, nil
}

// tellReady sends the program of this process to its supervisor, if it has one.
func tellReady(supervisor *os.File) error {
	if supervisor == nil {
		return nil
	}
	fd, err := unix.Open(selfPath, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", selfPath, err)
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.Sendmsg(int(supervisor.Fd()), []byte{0}, unix.UnixRights(fd), nil, unix.MSG_NOSIGNAL); err != nil {
		return fmt.Errorf("tell the supervisor: %w", err)
	}
	return nil
}
