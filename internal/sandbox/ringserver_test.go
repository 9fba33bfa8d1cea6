package sandbox

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ring"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// askNobody makes calls wait for an answer, and closes what the kernel asks on.
func askNobody() error {
	listener, err := askForRings()
	if err != nil {
		return err
	}
	return unix.Close(listener)
}

// serverFD is where a client has a socket to its server.
const serverFD = 3

// client is a process that gets its rings from the test, and returns what it can do with them.
func client() string {
	if err := setNoNewPrivs(); err != nil {
		return err.Error()
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 50, Max: 50}); err != nil {
		return err.Error()
	}
	c, fds, err := EnterAsking(ServingCalls)
	if err != nil {
		return "error: " + err.Error()
	}
	if err := unix.Sendmsg(serverFD, []byte{0}, unix.UnixRights(fds[:]...), nil, 0); err != nil {
		return err.Error()
	}
	if err := fds.Close(); err != nil {
		return err.Error()
	}
	return strings.Join(uses(c), "\n")
}

// uses are what a client says about its rings.
func uses(c *RingClient) (said []string) {
	say := func(what string, err error) { said = append(said, fmt.Sprintf("%s: %v", what, err)) }
	for _, single := range []bool{false, true} {
		done := make(chan struct{})
		startThread(func() { // the issuer
			defer close(done)
			opts := ring.Options{Entries: 4, CQEntries: 64, SingleIssuer: single}
			for _, opcode := range []uint8{ring.IORING_OP_NOP, ring.IORING_OP_SOCKET} {
				say(fmt.Sprintf("operation %d, single %v", opcode, single), ofClient(c, opts, opcode))
			}
		})
		<-done
	}
	_, err := c.New(ring.Options{Entries: 1 << 20})
	say("a large ring", err)
	last := fillFiles()
	_, err = c.New(ring.Options{SingleIssuer: true})
	say("a full table of files", err)
	_ = unix.Close(last)
	say("room for one again", ofClient(c, ring.Options{}, ring.IORING_OP_NOP))
	_ = unix.Close(last - 1)
	say("layouts that nobody reads", leaveLayouts())
	_ = unix.Close(c.layouts)
	say("no pipe for layouts", leaveLayouts())
	return said
}

// fillFiles opens as many files as the limit allows, and returns the last one.
func fillFiles() (last int) {
	for {
		fd, err := unix.FcntlInt(0, unix.F_DUPFD, 0)
		if err != nil {
			return last
		}
		last = fd
	}
}

// leaveLayouts gets rings without their layouts until it gets none. The pipe has room for so many.
func leaveLayouts() error {
	for {
		fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, 0, 0)
		if errno != 0 {
			return errno
		}
		if err := unix.Close(int(fd)); err != nil {
			return err
		}
	}
}

// ofClient lets a ring of the server carry out an entry, in room for 64 results.
func ofClient(c *RingClient, opts ring.Options, opcode uint8) error {
	r, err := c.New(opts)
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }()
	if single := r.Flags()&ring.IORING_SETUP_SINGLE_ISSUER != 0; single != opts.SingleIssuer {
		return errors.New("it has the layout of another ring")
	}
	return carryOut(r, &ring.SQE{Opcode: opcode, Fd: unix.AF_UNIX, Off: unix.SOCK_STREAM})
}

// A process gets rings from its starter that do what the limits allow, and nothing else. What it asks for in vain is an error of
// it, and the server goes on until the process has ended.
func TestKernelRingsOfStarter(t *testing.T) {
	ublktest.Kernel(t, ublktest.Plain, ublktest.EveryKernel)
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "socket")
	defer func() { _ = unix.Close(pair[0]) }()
	var out strings.Builder
	cmd := exec.Command("/proc/self/exe", clientRole, "")
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = &out, &out, []*os.File{theirs}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = theirs.Close()
	served := make(chan error, 1)
	if fds := receiveFDs(t, pair[0]); len(fds) == len(RingServerFDs{}) {
		s, err := NewRingServer(&ring.Restrictions{Ops: []uint8{ring.IORING_OP_NOP}}, RingServerFDs(fds))
		if err != nil {
			t.Fatal(err)
		}
		go func() { served <- s.Serve() }() // ends with the process
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	want := []string{
		"operation 0, single false: <nil>", "operation 45, single false: permission denied",
		"operation 0, single true: <nil>", "operation 45, single true: permission denied",
		"a large ring: get a ring from the server: invalid argument",
		"a full table of files: get a ring from the server: too many open files", "room for one again: <nil>",
		"layouts that nobody reads: resource temporarily unavailable",
		"no pipe for layouts: broken pipe",
	}
	if got := out.String(); got != strings.Join(want, "\n") {
		t.Fatalf("the process says:\n%s\nwant:\n%s", got, strings.Join(want, "\n"))
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// receiveFDs returns the descriptors of a message, or none at the end.
func receiveFDs(t *testing.T, socket int) []int {
	t.Helper()
	oob := make([]byte, 64)
	_, n, _, _, err := unix.Recvmsg(socket, make([]byte, 1), oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(messages) == 0 {
		return nil
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		t.Fatal(err)
	}
	return fds
}

// A ring that the server cannot make is refused, and no other one is requested.
func TestLargeEntries(t *testing.T) {
	if r, err := new(RingClient).New(ring.Options{SQE128: true}); !errors.Is(err, unix.EINVAL) || r != nil {
		t.Errorf("ring %v, error %v, want EINVAL", r, err)
	}
}

// The process gets the errno of an error.
func TestErrnoOf(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want unix.Errno
	}{{fmt.Errorf("no memory: %w", unix.ENOMEM), unix.ENOMEM}, {errors.New("another"), unix.EIO}} {
		if got := errnoOf(tt.err); got != tt.want {
			t.Errorf("%v: %v, want %v", tt.err, got, tt.want)
		}
	}
}
