package daemon

import (
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"testing"

	"golang.org/x/sys/unix"
)

// The server ends when a thread of devices fails, also if several threads fail.
func TestServeEndsWhenAThreadFails(t *testing.T) {
	s := &many{task: &manyTask{}, failed: make(chan error, 1)}
	for range 3 {
		s.Failed(unix.EBADF)
	}
	err := s.wait(nil, nil)
	if !errors.Is(err, errNotServed) || !errors.Is(err, unix.EBADF) {
		t.Errorf("it ends with %v", err)
	}
}

// The supervisor restarts a server that was killed, or that ended so that another can
// take over its devices. It does not restart a server that ended with another error.
func TestSupervisedCrash(t *testing.T) {
	for script, want := range map[string]bool{"exit 0": false, "exit 1": false, "exit 2": false, "exit 4": true, "kill -9 $$": true} {
		cmd := exec.Command("sh", "-c", script)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // the test looks at the exit status
		if got := crashed(cmd.ProcessState); got != want {
			t.Errorf("%s: crashed %v, want %v", script, got, want)
		}
	}
}

// The supervisor learns the programs of all servers that became ready, and executes the
// last one.
func TestSupervisorExecutesTheLastProgram(t *testing.T) {
	ready, err := newReadyPrograms()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = ready.tell.Close(), ready.heard.Close() }()
	l := &launch{files: descriptors{readyFile: ready.tell}}
	if err := ready.update(l); err != nil || l.program() != selfPath {
		t.Errorf("before a server is ready: program %s, error %v", l.program(), err)
	}
	for range 100 { // more than a socket keeps
		if err := tellReady(l.files[readyFile]); err != nil {
			t.Fatal(err)
		}
	}
	if err := ready.update(l); err != nil {
		t.Fatal(err)
	}
	first := l.files[programFile]
	// A server that does not become ready changes nothing. The next one that does takes the
	// place of the program, which only the supervisor closes.
	if err := ready.update(l); err != nil || l.files[programFile] != first || int(first.Fd()) == -1 {
		t.Errorf("after a server that was not ready: another program, or it is closed; error %v", err)
	}
	if err := tellReady(l.files[readyFile]); err != nil {
		t.Fatal(err)
	}
	if err := ready.update(l); err != nil || l.files[programFile] == first || int(first.Fd()) != -1 {
		t.Errorf("after the next server: the same program, or the old one is open; error %v", err)
	}
	is, err := os.Stat(l.program())
	if err != nil {
		t.Fatal(err)
	}
	if self, err := os.Stat(selfPath); err != nil || !os.SameFile(is, self) {
		t.Errorf("the program is %s, error %v", l.program(), err)
	}
}

// A signal that comes while an upgrade waits ends the server, and not the next program, which does not know of it.
func TestSignalDuringUpgrade(t *testing.T) {
	program, err := os.Open("/bin/false") // replaces this test if it is executed
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = program.Close() }()
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, endSignals()...)
	defer signal.Stop(stop)
	s := &many{task: &manyTask{}, files: descriptors{}, log: noLogger()}
	for range 2 { // signals arrive as before after the first
		if err := unix.Kill(os.Getpid(), unix.SIGTERM); err != nil {
			t.Fatal(err)
		}
		stop <- <-stop // another thread may get the signal, after Kill has returned
		if err := s.execute(program, predecessor{}, stop); !errors.Is(err, errEnding) {
			t.Errorf("the upgrade ends with %v", err)
		}
		if err := s.wait(stop, nil); err != nil {
			t.Error(err)
		}
	}
}
