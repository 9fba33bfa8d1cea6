package daemon

import (
	"errors"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

// A server whose devices hang for want of a thread ends, whatever else goes on,
// however many threads fail.
func TestServeEndsWhenAThreadFails(t *testing.T) {
	s := &many{task: &manyTask{}, failed: make(chan error, 1)}
	for range 3 {
		s.Failed(unix.EBADF)
	}
	err := s.wait(nil, nil)
	if !errors.Is(err, errThread) || !errors.Is(err, unix.EBADF) {
		t.Errorf("it ends with %v", err)
	}
}

// The supervisor starts another for one that was killed, or that had to end so
// that its devices can be taken over; not for one that could not do its work.
func TestSupervisedCrash(t *testing.T) {
	for script, want := range map[string]bool{"exit 0": false, "exit 1": false, "exit 2": false, "exit 4": true, "kill -9 $$": true} {
		cmd := exec.Command("sh", "-c", script)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // its status is what counts
		if got := crashed(cmd.ProcessState); got != want {
			t.Errorf("%s: crashed %v, want %v", script, got, want)
		}
	}
}
