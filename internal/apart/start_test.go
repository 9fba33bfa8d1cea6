package apart

import (
	"fmt"
	"os"
	"os/exec"
	"testing"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// startOnFirst starts and abandons a process, and returns the root directory that other processes
// see for this one in the meantime.
func startOnFirst(victim string) string {
	p, err := Start("/proc/self/exe", []string{"test", confinedRole, victim}, nil, nil)
	if err != nil {
		return err.Error()
	}
	defer p.Abandon()
	own, err1 := os.Stat(fmt.Sprintf("/proc/%d/root/.", os.Getpid()))
	root, err2 := os.Stat("/")
	if err1 != nil || err2 != nil || !os.SameFile(own, root) {
		return fmt.Sprintf("the root directory has changed: %v, %v", err1, err2)
	}
	return "started"
}

// The first thread of a program does not end with a goroutine, and is the process for others. It
// never starts the process, although it is the only one that is free at the start of the program.
func TestKernelStartOnFirstThread(t *testing.T) {
	ublktest.Kernel(t, ublktest.Plain)
	for range 20 {
		cmd := exec.Command("/proc/self/exe", firstRole, "1")
		cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
		if out, err := cmd.CombinedOutput(); err != nil || string(out) != "started" {
			t.Fatalf("%s, %v", out, err)
		}
	}
}
