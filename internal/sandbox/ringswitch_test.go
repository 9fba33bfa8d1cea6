package sandbox

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ring"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// withoutRings makes the kernel refuse rings to processes without privileges, until the end of the test.
func withoutRings(t *testing.T) {
	t.Helper()
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
}

// A process for which the kernel makes no rings does not ask its starter, which may be allowed to make them.
func TestKernelAskingWithoutRings(t *testing.T) {
	ublktest.Kernel(t, ublktest.Own, ublktest.Plain)
	withoutRings(t)
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

// If the kernel makes no more rings for a process, its starter, which may be allowed to make them, does not make them either.
func TestKernelRingsOfStarterSwitchedOff(t *testing.T) {
	ublktest.Kernel(t, ublktest.Own, ublktest.Plain)
	noListener, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = noListener.Close() }()
	s := &RingServer{limits: &ring.Restrictions{}, listener: noListener}
	request := &notification{Args: [6]uint64{1}}
	if _, err := s.give(request); !errors.Is(err, unix.ENOTTY) { // a ring is there, and cannot be given
		t.Errorf("the starter returns %v, want ENOTTY", err)
	}
	withoutRings(t)
	if _, err := s.give(request); !errors.Is(err, unix.EPERM) {
		t.Errorf("without rings for the process, the starter returns %v, want EPERM", err)
	}
}
