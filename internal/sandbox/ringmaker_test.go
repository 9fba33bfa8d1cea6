package sandbox

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ring"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// maker is a process that makes a ring and says where it is. It closes the ring when it reads a line, says so, and ends at the
// next line.
func maker() {
	in := bufio.NewReader(os.Stdin)
	fd, layout, err := makeRing(ring.Options{Restrictions: &ring.Restrictions{Registers: []uint8{ring.IORING_REGISTER_FILES}}})
	if err != nil {
		return
	}
	fmt.Printf("%d %x\n", fd, layout)
	_, _ = in.ReadString('\n')
	fmt.Println(unix.Close(fd))
	_, _ = in.ReadString('\n')
}

// The kernel releases a ring, and the files in its tables, also while the process that has made it for another one does not run.
func TestKernelReleaseOfMadeRing(t *testing.T) {
	ublktest.Kernel(t, ublktest.Plain, ublktest.OldestAndNewest)
	cmd := exec.Command("/proc/self/exe", makerRole, "")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = errors.Join(cmd.Process.Kill(), cmd.Wait()) }()
	var theirs int
	var text []byte
	if _, err := fmt.Fscanf(out, "%d %x\n", &theirs, &text); err != nil {
		t.Fatal(err)
	}
	r := takeRing(t, cmd.Process.Pid, theirs, ring.Layout(text))
	var closed string
	if _, err := fmt.Fprintln(in); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fscanln(out, &closed); err != nil || closed != "<nil>" {
		t.Fatalf("the maker closes the ring with %q, error %v", closed, err)
	}

	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = read.Close() }()
	if err := r.RegisterFiles([]int32{int32(write.Fd())}); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	var status unix.WaitStatus
	if _, err := unix.Wait4(cmd.Process.Pid, &status, unix.WUNTRACED, nil); err != nil || !status.Stopped() {
		t.Fatalf("the maker is not stopped: %v, error %v", status, err)
	}
	if err := errors.Join(r.Close(), write.Close(), read.SetReadDeadline(time.Now().Add(10*time.Second))); err != nil {
		t.Fatal(err)
	}
	if _, err := read.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the ring still has the file: %v", err)
	}
}

// takeRing takes a ring from the process that has made it.
func takeRing(t *testing.T, pid, fd int, layout ring.Layout) *ring.Ring {
	t.Helper()
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(pidfd) }()
	ours, err := unix.PidfdGetfd(pidfd, fd, 0)
	if err != nil {
		t.Fatal(err)
	}
	r, err := ring.Adopt(ours, layout)
	if err != nil {
		t.Fatal(err)
	}
	return r
}
