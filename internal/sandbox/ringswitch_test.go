package sandbox

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// A process for which the kernel makes no rings does not ask its starter, which may be allowed to make them.
func TestKernelAskingWithoutRings(t *testing.T) {
	ublktest.Kernel(t, ublktest.Own, ublktest.Plain)
	const setting = "/proc/sys/kernel/io_uring_disabled"
	was, err := os.ReadFile(setting)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(setting, []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.WriteFile(setting, was, 0); err != nil {
			t.Error(err)
		}
	})
	cmd := exec.Command("/proc/self/exe", clientRole, "")
	const nobody = 65534
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if got, want := string(out), "error: io_uring_setup: operation not permitted"; !strings.HasPrefix(got, want) {
		t.Errorf("the process says %q, want %q", got, want)
	}
}
