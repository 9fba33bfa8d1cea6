package process

import (
	"errors"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A lifeline waits for all processes that have the other end, also for one whose parent has ended.
func TestLifeline(t *testing.T) {
	l, theirs, err := NewLifeline()
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	shell := exec.Command("sh", "-c", `sleep 3600 >&- 2>&- & echo $!`)
	shell.ExtraFiles = append(shell.ExtraFiles, theirs)
	out, err := shell.Output()
	if err != nil {
		t.Fatal(err)
	}
	if err := theirs.Close(); err != nil {
		t.Fatal(err)
	}
	if err := l.Wait(10 * time.Millisecond); !errors.Is(err, unix.ETIMEDOUT) {
		t.Errorf("while a process has it: %v", err)
	}
	kill := exec.Command("kill", "-KILL", string(out[:len(out)-1]))
	if err := kill.Run(); err != nil {
		t.Fatal(err)
	}
	if err := l.Wait(time.Minute); err != nil {
		t.Errorf("after its end: %v", err)
	}
}
