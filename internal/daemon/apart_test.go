package daemon

import (
	"fmt"
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

// startsRole is the first argument of the test program as a server that starts the process for requests. The second is
// a limit of locked memory.
const startsRole = "starts"

func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == startsRole {
		fmt.Print(startLimited(os.Args[2]))
		os.Exit(0)
	}
	if len(os.Args) > 1 && os.Args[1] == apartRole.name {
		os.Exit(1) // started by startsRole
	}
	os.Exit(m.Run())
}

// startLimited returns the error of a server that starts the process for requests with a limit of locked memory.
func startLimited(limit string) error {
	var now unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &now); err != nil {
		return err
	}
	if _, err := fmt.Sscan(limit, &now.Cur); err != nil {
		return err
	}
	if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &now); err != nil {
		return err
	}
	_, err := startSandbox(apartRole, nil)
	return err
}

// A server starts no process for the requests if systemd would end that at a shutdown before the device, or if that could not
// lock all memory that it will have.
func TestStartsNoProcess(t *testing.T) {
	for name, want := range map[string]error{"@server": errRootStorage, "server": errLockLimit} {
		cmd := exec.Command("/proc/self/exe")
		cmd.Args = []string{name, startsRole, "4096"}
		if out, err := cmd.CombinedOutput(); err != nil || string(out) != want.Error() {
			t.Errorf("%s: it ends with %q, %v; want %q", name, out, err, want)
		}
	}
}
