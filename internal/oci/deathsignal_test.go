package oci

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// testRole is the variable that has this program be something else than its tests.
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

// executeElsewhere executes a runtime, which is this program again, by another
// thread than the main one.
func executeElsewhere() int {
	if err := os.Setenv(testRole, "runtime"); err != nil {
		return 1
	}
	runtime.LockOSThread() // the main thread
	failed := make(chan error)
	go func() { failed <- (&Wrapper{Runtime: "/proc/self/exe"}).execute(nil) }()
	fmt.Print(<-failed)
	return 1
}

// A runtime gets the signal at its parent's end that the wrapper was to get.
func TestExecuteKeepsDeathSignal(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	runtime.LockOSThread() // whose end would be the parent's
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
