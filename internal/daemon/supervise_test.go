package daemon

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/report"
)

// Scripts for servers. A script that becomes ready prints a line.
const (
	obeyingServer  = `trap 'exit 0' TERM; echo; read -r _`
	loadingServer  = `read -r _; trap 'exit 0' TERM; echo; read -r _`   // SIGTERM kills it before the first line of its input
	upgradedServer = `trap 'kill -9 $$' TERM; echo; read -r _`          // such as in the exec of an upgrade
	refusingServer = `trap 'kill -9 $$' TERM; echo; read -r _; exit 99` // the same, as the last one
)

// supervised is a supervisor of scripts.
type supervised struct {
	supervisor
	t        *testing.T
	scripts  []string // of the servers to come
	ready    chan struct{}
	signals  chan os.Signal
	input    *os.File // of all servers
	starting func()
	// whenReady is called when the supervisor can learn that a server is ready.
	whenReady func()
}

func newSupervised(t *testing.T, scripts ...string) *supervised {
	t.Helper()
	output, input, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = output.Close(), input.Close() })
	s := &supervised{
		t: t, scripts: scripts, ready: make(chan struct{}, 1), signals: make(chan os.Signal, 1), input: input, starting: func() {}, whenReady: func() {},
	}
	s.supervisor = supervisor{
		start: func() (*os.Process, error) { return s.next(output) }, renew: func() error { return nil },
		ready: s.ready, signals: s.signals, log: noLogger(),
	}
	return s
}

// next starts the next server, or fails to if there is no script for it.
func (s *supervised) next(input *os.File) (*os.Process, error) {
	if len(s.scripts) == 0 {
		s.t.Error("one server too many is started")
		return nil, unix.EINVAL
	}
	script := s.scripts[0]
	s.scripts = s.scripts[1:]
	if script == "" {
		return nil, unix.EAGAIN
	}
	cmd := exec.Command("sh", "-c", script)
	cmd.Stdin = input
	output, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s.starting()
	go func() { // ends with the server
		if _, err := bufio.NewReader(output).ReadBytes('\n'); err == nil {
			s.ready <- struct{}{}
			s.whenReady()
		}
	}()
	return cmd.Process, nil
}

// A signal in the pause between two servers ends a server that has taken over the devices.
func TestSupervisorSignalInPause(t *testing.T) {
	s := newSupervised(t, "exit 4", "exit 4", obeyingServer)
	s.renew = func() error {
		if len(s.scripts) == 1 { // the pause after the second server is not empty
			s.signals <- unix.SIGTERM
		}
		return nil
	}
	if err := s.run(); err != nil || len(s.scripts) > 0 {
		t.Errorf("error %v, not started: %q", err, s.scripts)
	}
}

// A signal does not kill a server that is not ready for it.
func TestSupervisorSignalAtStart(t *testing.T) {
	s := newSupervised(t, loadingServer)
	s.signals = make(chan os.Signal)
	s.supervisor.signals = s.signals
	s.starting = func() {
		go func() { // the server is ready after the supervisor has the signal
			s.signals <- unix.SIGTERM
			_, _ = s.input.WriteString("\n")
		}()
	}
	if err := s.run(); err != nil {
		t.Error(err)
	}
}

// If no successor of a server that has crashed becomes ready, or can be started, the devices wait for the next one. The
// first server is not repeated.
func TestSupervisorDoesNotGiveUp(t *testing.T) {
	s := newSupervised(t, "echo; read -r _; kill -9 $$", "exit 1", "", "exit 2", "echo; read -r _; exit 3")
	s.whenReady = func() { _, _ = s.input.WriteString("\n") }
	if err := s.run(); !errors.Is(err, report.ErrReported) || len(s.scripts) > 0 {
		t.Errorf("error %v, not started: %q", err, s.scripts)
	}
	for _, script := range []string{"exit 1", ""} {
		if err := newSupervised(t, script).run(); err == nil {
			t.Errorf("%q: no error", script)
		}
	}
}

// A server that a signal finds in the exec of an upgrade has a successor, which obeys. After a second crash the
// supervisor ends.
func TestSupervisorSignalInUpgrade(t *testing.T) {
	for _, c := range []struct {
		last string
		ends bool
	}{{obeyingServer, true}, {refusingServer, false}} {
		s := newSupervised(t, upgradedServer, c.last)
		s.starting = func() {
			s.starting = func() {}
			s.signals <- unix.SIGTERM
		}
		if err := s.run(); (err == nil) != c.ends || len(s.scripts) > 0 {
			t.Errorf("%s: error %v, not started: %q", c.last, err, s.scripts)
		}
	}
}
