package apart

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/loop"
	"github.com/ublk-loop/ublk-loop/ring"
	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// These are the first arguments of the test program as another process.
const (
	confinedRole  = "confined"  // Run, and attacks in it
	askingRole    = "asking"    // the same, with rings of the server
	laterRole     = "later"     // the same, after the start of a device
	freeRole      = "free"      // the same attacks without a sandbox
	publisherRole = "publisher" // RunPublisher, and attacks in it
	firstRole     = "first"     // Start while the first thread is free
	panicRole     = "panic"     // Run, and a panic at a device
	loudRole      = "loud"      // the same, after more words than anybody reads
	diesRole      = "dies"      // Run, and SIGKILL at a device
	earlyRole     = "early"     // Run, and a panic before the sandbox
	servesRole    = "serves"    // Run
	neighbourRole = "neighbour" // the server of another device
)

func TestMain(m *testing.M) {
	if len(os.Args) > 2 {
		v := victimsOf(os.Args[2])
		hooks := Hooks{
			Prepare:  func() error { return nil },
			Queues:   func(int) error { return errors.New(succeeded(v)) },
			Settled:  func() {},
			Answered: func() {},
		}
		switch os.Args[1] {
		case askingRole:
			limitRings = unsupported
		case laterRole:
			limitRings = unsupported
			hooks.Queues = func(int) error { return nil }
			hooks.Settled = func() { panic(attacked + succeeded(v)) }
		case panicRole:
			hooks.Queues = func(int) error { panic(fault) }
		case loudRole:
			hooks.Queues = loudPanic
		case diesRole:
			hooks.Queues = func(int) error {
				return errors.Join(unix.Tgkill(unix.Getpid(), unix.Getpid(), unix.SIGKILL), errors.New("lives"))
			}
		case earlyRole:
			hooks.Prepare = func() error { panic(fault) }
		case servesRole:
			hooks.Queues = func(int) error { return nil }
		}
		switch os.Args[1] {
		case confinedRole, askingRole, laterRole, panicRole, loudRole, diesRole, earlyRole, servesRole:
			if err := Run(hooks); err != nil {
				os.Exit(1)
			}
			os.Exit(0)
		case publisherRole:
			attackFromPublisher(v)
			os.Exit(0)
		case firstRole:
			fmt.Print(startOnFirst(os.Args[2]))
			os.Exit(0)
		case freeRole:
			fmt.Print(succeeded(v))
			os.Exit(0)
		case neighbourRole:
			if err := neighbour(os.Args[2]); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			os.Exit(0)
		}
	}
	os.Exit(m.Run())
}

// unsupported is limitRings on a kernel that does not limit all rings of a process.
func unsupported(*ring.Restrictions) error { return errors.ErrUnsupported }

// attacked begins the last words of a process after attacks.
const attacked = "attacks that succeed: "

// used is a process that serves all devices.
type used struct{ *Process }

func (used) Unused() {}

// attacks are what code in the process could try. Each returns nil if it succeeds.
var attacks = map[string]func(v *victims) error{
	"open a file":        func(*victims) error { return opens("/etc/passwd", unix.O_RDONLY) },
	"open the directory": func(*victims) error { return opens("/", unix.O_RDONLY|unix.O_DIRECTORY) },
	"open by io_uring":   func(*victims) error { return opensByRing("/etc/passwd") },
	"make a socket by io_uring": func(*victims) error {
		return byRing(ring.SQE{Opcode: ring.IORING_OP_SOCKET, Fd: unix.AF_UNIX, Off: unix.SOCK_STREAM})
	},
	"mount": func(*victims) error {
		return unix.Mount("none", "/", "tmpfs", 0, "")
	},
	"trace the server":                func(v *victims) error { return unix.PtraceSeize(v.Server) },
	"trace another device's process":  func(v *victims) error { return unix.PtraceSeize(v.Holder) },
	"signal the server":               func(v *victims) error { return unix.Kill(v.Server, unix.SIGCONT) },
	"signal another device's process": func(v *victims) error { return unix.Kill(v.Holder, unix.SIGCONT) },
	"read the memory of the server": func(v *victims) error {
		return opens(fmt.Sprintf("/proc/%d/mem", v.Server), unix.O_RDONLY)
	},
	"read another device's key": (*victims).readKey,
	"control the driver":        func(*victims) error { return opens("/dev/ublk-control", unix.O_RDWR) },
	"make a socket": func(*victims) error {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
		_ = unix.Close(fd)
		return err
	},
	"start a program": func(*victims) error { return exec.Command("/proc/self/exe", "-test.run=^$").Run() },
	"become root":     func(*victims) error { return unix.Setresuid(0, 0, 0) },
	"change a limit":  func(*victims) error { return unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}) },
}

func opens(path string, flags int) error {
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
	_ = unix.Close(fd)
	return err
}

// opensByRing opens a file with a ring, which no list of system calls sees.
func opensByRing(path string) error {
	name := append([]byte(path), 0)
	defer runtime.KeepAlive(name)
	return byRing(ring.SQE{Opcode: ring.IORING_OP_OPENAT, Fd: unix.AT_FDCWD, Addr: ring.Address(name), OpFlags: unix.O_RDONLY})
}

// byRing lets a ring do what an entry says. It closes the descriptor that is the result.
func byRing(entry ring.SQE) error {
	r, err := ring.New(ring.Options{Entries: 1})
	if err != nil {
		r, err = ringOfServer()
	}
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }()
	*r.GetSQE() = entry
	if err := r.SubmitAndWait(1); err != nil {
		return err
	}
	res := r.CQE(0).Res
	if res < 0 {
		return unix.Errno(-res)
	}
	return unix.Close(int(res))
}

// ringOfServer gets a ring as the process itself does, with nothing but system calls.
func ringOfServer() (*ring.Ring, error) {
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, 0, 0)
	if errno != 0 {
		return nil, errno
	}
	for pipe := range 100 { // one of them has the layout
		var layout ring.Layout
		flags, err := unix.FcntlInt(uintptr(pipe), unix.F_GETFL, 0)
		if err != nil || flags&unix.O_NONBLOCK == 0 {
			continue
		}
		if n, err := unix.Read(pipe, layout[:]); err == nil && n == len(layout) {
			return ring.Adopt(int(fd), layout)
		}
	}
	return nil, errors.Join(unix.EBADF, unix.Close(int(fd)))
}

// succeeded returns the names of the attacks that succeed, or "none".
func succeeded(v *victims) string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(attacks)) {
		if attacks[name](v) == nil {
			list = append(list, name)
		}
	}
	if list == nil {
		return "none"
	}
	return strings.Join(list, ", ")
}

// Code in the process that serves requests, which has the device and the file open, can do nothing with
// its server, with another device or with the rest of the machine. Without the sandbox it can.
func TestKernelAttacks(t *testing.T) {
	ctl := ublktest.Kernel(t, ublktest.Plain)
	ublktest.Provokes(t, "openat")
	key := newKey(t)
	targets := newVictims(t, startNeighbour(t, key), key).argument(t)

	free := exec.Command("/proc/self/exe", freeRole, targets)
	free.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	out, err := free.CombinedOutput()
	if want := strings.Join(slices.Sorted(maps.Keys(attacks)), ", "); err != nil || string(out) != want {
		t.Errorf("without a sandbox succeed: %q, error %v; want all: %q", out, err, want)
	}

	for _, role := range []string{confinedRole, askingRole} {
		dev, p, err := serveBy(t, ctl, role, targets)
		if err == nil {
			p.Kill()
			t.Fatal(dev.Close())
		}
		if !strings.HasSuffix(err.Error(), ": none") {
			t.Errorf("%s: in the sandbox succeed: %v", role, err)
		}
	}
}

// It is the same when the process has a device and rings of its server.
func TestKernelAttacksLater(t *testing.T) {
	ctl := ublktest.Kernel(t, ublktest.Plain, ublktest.EveryKernel)
	ublktest.Provokes(t, "openat")
	v := &victims{Server: os.Getpid(), Holder: os.Getpid()}
	unlimitThreads(t)
	dev, p, err := serveBy(t, ctl, laterRole, v.argument(t))
	if err != nil {
		t.Fatal(err)
	}
	checkThreadLimit(t, p.Pid())
	p.Settle()
	<-p.Ended()
	if err := p.Err(); err == nil || !strings.Contains(err.Error(), "panic: "+attacked+"none at ") {
		t.Errorf("the process ends with %v", err)
	}
	_ = dev.Close() // says the same
}

// unlimitThreads gives this process the limit of a server.
func unlimitThreads(t *testing.T) {
	t.Helper()
	if err := unix.Setrlimit(unix.RLIMIT_NPROC, &unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}); err != nil {
		t.Fatal(err)
	}
}

// checkThreadLimit checks that a process cannot use up the threads that its server needs.
func checkThreadLimit(t *testing.T, pid int) {
	t.Helper()
	var limit unix.Rlimit
	if err := unix.Prlimit(pid, unix.RLIMIT_NPROC, nil, &limit); err != nil || limit.Max == unix.RLIM_INFINITY {
		t.Errorf("process %d can have %d threads, error %v", pid, limit.Max, err)
	}
}

// serveBy attaches a file with a process of a role, which also gets its victims.
func serveBy(t *testing.T, ctl *ublk.Control, role, targets string) (*loop.Device, *Process, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := loop.OpenPath(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = file.Close() })
	p, err := Start("/proc/self/exe", []string{"test", role, targets}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	cfg := loop.Config{Queues: 1, Depth: 4} // of little locked memory
	dev, err := loop.AttachApart(ctl, []*os.File{file}, cfg, used{p})
	return dev, p, err
}
