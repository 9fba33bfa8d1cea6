package sandbox

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// These are the first arguments of the test program as another process. The second is the description of a key.
const (
	starterRole = "starter" // looks for the key, and starts the next
	keysRole    = "keys"    // looks for the key in the sandbox, before Enter
)

// lookForKey says whether the process of a role finds a key in its session keyring. A starter also says that of the
// process that it starts.
func lookForKey(role, key string) string {
	said := role + " finds it\n"
	if _, err := unix.KeyctlSearch(unix.KEY_SPEC_SESSION_KEYRING, "user", key, 0); err != nil {
		said = fmt.Sprintf("%s: %v\n", role, err)
	}
	if role == keysRole {
		return said
	}
	fmt.Print(said)
	p, err := Start(&Command{
		Path: "/proc/self/exe", Args: []string{"test", keysRole, key}, Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}, User: 0x6fffffff,
	})
	if err != nil {
		return err.Error()
	}
	<-p.Ended()
	return fmt.Sprintf("%v\n", p.State())
}

// A process in the sandbox has none of the keys that its starter has, also before there is a list of system calls.
func TestKernelStartWithoutKeys(t *testing.T) {
	ublktest.Kernel(t, ublktest.Once)
	const key = "ublk-loop-test"
	said := make(chan string)
	go func() {
		runtime.LockOSThread() // the thread, which has the keyring, ends with the goroutine
		ring, err := unix.KeyctlInt(unix.KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0, 0)
		if err == nil {
			_, err = unix.AddKey("user", key, []byte("secret"), ring)
		}
		if err != nil {
			said <- err.Error()
			return
		}
		out, err := exec.Command("/proc/self/exe", starterRole, key).CombinedOutput()
		said <- fmt.Sprintf("%s%v", out, err)
	}()
	const want = "starter finds it\nkeys: required key not available\nexit status 0\n<nil>"
	if got := <-said; got != want {
		t.Errorf("the processes say %q, want %q", got, want)
	}
}
