package oci

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// testRole is the environment variable that makes this program play a role instead of
// running its tests.
const testRole = "UBLK_LOOP_OCI_TEST"

func TestMain(m *testing.M) {
	switch os.Getenv(testRole) {
	case "wrapper":
		os.Exit(executeElsewhere())
	case "run":
		fmt.Print((&Wrapper{Maker: Maker{Settings: &Settings{}}, Runtime: "/bin/echo"}).Run(os.Args[1:]))
		os.Exit(1)
	case "runtime":
		fmt.Print(deathSignal)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// executeElsewhere executes a runtime, which is this program again, from a thread other
// than the main one.
func executeElsewhere() int {
	if err := os.Setenv(testRole, "runtime"); err != nil {
		return 1
	}
	runtime.LockOSThread() // occupies the main thread
	failed := make(chan error)
	go func() { failed <- (&Wrapper{Runtime: "/proc/self/exe"}).execute(nil) }()
	fmt.Print(<-failed)
	return 1
}

// The runtime gets the same signal at its parent's end as the wrapper would have got.
func TestExecuteKeepsDeathSignal(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	runtime.LockOSThread() // the signal is sent when the starting thread ends
	defer runtime.UnlockOSThread()
	for _, signal := range []unix.Signal{unix.SIGKILL, 0} {
		cmd := exec.Command(self)
		cmd.Env = append(os.Environ(), testRole+"=wrapper")
		cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: signal}
		if out, err := cmd.CombinedOutput(); err != nil || string(out) != fmt.Sprint(int(signal)) {
			t.Errorf("with signal %d the runtime has %s, error %v", signal, out, err)
		}
	}
}
