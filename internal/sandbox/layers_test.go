package sandbox

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ring"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// Each layer of the sandbox is tested alone here, in a process that has only this one. In the whole sandbox the other
// layers would hide that one of them is missing. These are tests of the kernel, because they need code without the
// race detector: Go makes no system call on all threads of a process with C code.

// These are the first arguments of the test program as another process. The second is a directory with what is to be
// reached from there.
const (
	freeRole      = "free"      // without any layer
	landlockRole  = "landlock"  // denyFiles
	listRole      = "list"      // limitCalls
	otherListRole = "otherlist" // limitCalls, while a thread has another list
	askingRole    = "asking"    // askForRings, and nobody answers
	clientRole    = "client"    // EnterAsking, and a test answers
	makerRole     = "maker"     // makes a ring for the test
	looseRole     = "loose"     // LimitRings beside limits of a starter
	filteredRole  = "filtered"  // LimitRings beside a filter of a starter
	ringsRole     = "rings"     // LimitRings
	againRole     = "again"     // LimitRings, and then for nothing
)

func TestMain(m *testing.M) {
	if len(os.Args) == 3 && (os.Args[1] == keysRole || os.Args[1] == starterRole) {
		fmt.Print(lookForKey(os.Args[1], os.Args[2]))
		os.Exit(0)
	}
	if len(os.Args) == 3 {
		layers := map[string]func() error{
			freeRole: func() error { return nil }, landlockRole: denyFiles,
			listRole:      func() error { return limitCalls(ServingCalls) },
			otherListRole: limitBesideOther,
			askingRole:    askNobody,
			ringsRole:     func() error { return LimitRings(ServingRings) },
			againRole:     func() error { return errors.Join(LimitRings(ServingRings), LimitRings(&ring.Restrictions{})) },
		}
		switch os.Args[1] {
		case crowdedRole:
			exitWith(crowded())
		case swarmRole:
			exitWith(swarm())
		case clientRole:
			fmt.Print(client())
			os.Exit(0)
		case makerRole:
			maker()
			os.Exit(0)
		case looseRole:
			fmt.Print(beside(startLoose))
			os.Exit(0)
		case filteredRole:
			fmt.Print(beside(startFiltered))
			os.Exit(0)
		}
		if enter := layers[os.Args[1]]; enter != nil {
			fmt.Print(within(enter, os.Args[2]))
			os.Exit(0)
		}
	}
	os.Exit(m.Run())
}

// exitWith ends the process with an error or without.
func exitWith(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// within returns the names of the acts that are refused after a layer was entered, on the thread that entered it and
// on another one that was there before. An error of the layer is the result.
func within(enter func() error, dir string) string {
	if err := setNoNewPrivs(); err != nil {
		return err.Error()
	}
	runtime.LockOSThread()
	begin, refused := make(chan struct{}), make(chan string)
	other := make(chan struct{})
	go func() {
		runtime.LockOSThread()
		close(other)
		<-begin
		refused <- refusedActs(dir)
	}()
	<-other
	if err := enter(); err != nil {
		return "error: " + err.Error()
	}
	close(begin)
	return refusedActs(dir) + "\n" + <-refused
}

func setNoNewPrivs() error {
	if _, _, errno := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0); errno != 0 {
		return errno
	}
	return nil
}

// act is something that a layer refuses.
type act struct {
	name string
	do   func(dir string) error
	role string // of the layer
	// landlock is the version of Landlock that refuses it.
	landlock int
	// want is how the list refuses it.
	want unix.Errno
}

// refusedActs returns the names of the acts that are refused.
func refusedActs(dir string) string {
	var names []string
	for _, a := range acts {
		err := a.do(dir)
		if a.want == 0 && (errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM)) || a.want != 0 && errors.Is(err, a.want) {
			names = append(names, a.name)
		}
	}
	return strings.Join(names, ", ")
}

// acts are not files of other users, so that only the layer can refuse them.
var acts = []act{
	{"open a file", func(dir string) error { return closed(unix.Open(dir+"/file", unix.O_RDONLY, 0)) }, landlockRole, 1, 0},
	{"open a directory", func(dir string) error { return closed(unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)) }, landlockRole, 1, 0},
	{"make a file", func(dir string) error { return closed(unix.Open(dir+"/new", unix.O_WRONLY|unix.O_CREAT, 0o600)) }, landlockRole, 1, 0},
	{"truncate a file", func(dir string) error { return unix.Truncate(dir+"/file", 0) }, landlockRole, 3, 0},
	{"bind TCP", func(string) error { return bind(unix.SOCK_STREAM) }, landlockRole, 4, 0},
	{"signal a process", func(string) error { return unix.Kill(unix.Getppid(), 0) }, landlockRole, 6, 0},
	{"reach an abstract socket", func(dir string) error { return connect("@" + dir) }, landlockRole, 6, 0},
	{"reach a socket", func(dir string) error { return connect(dir + "/socket") }, landlockRole, 9, 0},
	{"bind UDP", func(string) error { return bind(unix.SOCK_DGRAM) }, landlockRole, 10, 0},

	{"call socketpair", func(string) error {
		_, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		return err
	}, listRole, 0, unix.EPERM},
	{"call prctl", func(string) error { _, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0); return err }, listRole, 0, unix.EPERM},
	// The kernel refuses these flags in another way.
	{"make a process", func(string) error { return call(unix.SYS_CLONE, unix.CLONE_SIGHAND) }, listRole, 0, unix.EPERM},
	{"make anything by clone3", func(string) error { return call(unix.SYS_CLONE3, 0) }, listRole, 0, unix.ENOSYS},
	{"signal a thread outside", func(string) error { ppid := unix.Getppid(); return unix.Tgkill(ppid, ppid, 0) }, listRole, 0, unix.EPERM},
	{"call by another ABI", func(string) error { return call(x32|unix.SYS_GETPID, 0) }, listRole, 0, unix.EPERM},

	{"limit calls again", func(string) error { return call2(unix.SYS_SECCOMP, unix.SECCOMP_GET_NOTIF_SIZES, 0) }, listRole, 0, unix.EPERM},

	{"make a ring", func(string) error { return onRing(func(*ring.Ring) error { return nil }) }, askingRole, 0, unix.ENOSYS},

	{"make a socket by a ring", func(string) error {
		return byRing(&ring.SQE{Opcode: ring.IORING_OP_SOCKET, Fd: unix.AF_UNIX, Off: unix.SOCK_STREAM})
	}, ringsRole, 0, unix.EACCES},
	{"open a file by a ring", func(dir string) error {
		name := append([]byte(dir+"/file"), 0)
		defer runtime.KeepAlive(name)
		return byRing(&ring.SQE{Opcode: ring.IORING_OP_OPENAT, Fd: unix.AT_FDCWD, Addr: ring.Address(name), OpFlags: unix.O_RDONLY})
	}, ringsRole, 0, unix.EACCES},
	{"set a flag of an entry", func(string) error { return byRing(&ring.SQE{Flags: ring.IOSQE_IO_DRAIN}) }, ringsRole, 0, unix.EACCES},
	{"register the user at a ring", func(string) error {
		return onRing(func(r *ring.Ring) error {
			return call2(unix.SYS_IO_URING_REGISTER, uintptr(r.FD()), ring.IORING_REGISTER_PERSONALITY)
		})
	}, ringsRole, 0, unix.EACCES},
	{"register the user at a disabled ring", func(string) error {
		fd, _, err := ring.Make(ring.Options{Restrictions: &ring.Restrictions{}})
		if err != nil {
			return err
		}
		return errors.Join(call2(unix.SYS_IO_URING_REGISTER, uintptr(fd), ring.IORING_REGISTER_PERSONALITY), unix.Close(fd))
	}, ringsRole, 0, unix.EACCES},
}

// onRing calls a function for a ring.
func onRing(f func(*ring.Ring) error) error {
	r, err := ring.New(ring.Options{Entries: 1})
	if err != nil {
		return err
	}
	return errors.Join(f(r), r.Close())
}

// byRing lets a new ring carry out an entry.
func byRing(sqe *ring.SQE) error {
	return onRing(func(r *ring.Ring) error { return carryOut(r, sqe) })
}

// carryOut lets a ring carry out an entry. It closes the descriptor that is the result.
func carryOut(r *ring.Ring, sqe *ring.SQE) error {
	*r.GetSQE() = *sqe
	if err := r.SubmitAndWait(1); err != nil {
		return err
	}
	res := r.CQE(0).Res
	if res < 0 {
		return unix.Errno(-res)
	}
	if res > 0 {
		return unix.Close(int(res))
	}
	return nil
}

// call makes a system call with one argument. The others are 0.
func call(number, argument uintptr) error { return call2(number, argument, 0) }

// call2 is call with two arguments.
func call2(number, first, second uintptr) error {
	if _, _, errno := unix.RawSyscall6(number, first, second, 0, 0, 0, 0); errno != 0 {
		return errno
	}
	return nil
}

func closed(fd int, err error) error {
	if err == nil {
		err = unix.Close(fd)
	}
	return err
}

// bind binds an internet socket of a type to a port.
func bind(kind int) error {
	fd, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil // the other layers refuse that, and this is not about them
	}
	defer func() { _ = unix.Close(fd) }()
	return unix.Bind(fd, &unix.SockaddrInet4{})
}

func connect(name string) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil // as in bind
	}
	defer func() { _ = unix.Close(fd) }()
	return unix.Connect(fd, &unix.SockaddrUnix{Name: name})
}

// run runs this program in a role, and returns what it says for each of two threads.
func run(t *testing.T, role string) []string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"@" + dir, dir + "/socket"} {
		l, err := net.Listen("unix", name)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = l.Close() }()
	}
	out, err := exec.Command("/proc/self/exe", role, dir).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", role, err, out)
	}
	return strings.Split(string(out), "\n")
}

// refuses checks that a layer refuses its acts on all threads, and that without it nothing does.
func refuses(t *testing.T, role string, is func(*act) bool) {
	t.Helper()
	var want []string
	for i := range acts {
		if acts[i].role == role && is(&acts[i]) {
			want = append(want, acts[i].name)
		}
	}
	for i, got := range run(t, role) {
		for _, a := range acts {
			if refused := contains(got, a.name); a.role == role && refused != contains(strings.Join(want, ", "), a.name) {
				t.Errorf("thread %d: %s is refused: %v", i, a.name, refused)
			}
		}
	}
	for i, got := range run(t, freeRole) {
		for _, name := range want {
			if contains(got, name) {
				t.Errorf("thread %d: without the layer %s is refused", i, name)
			}
		}
	}
}

// contains reports whether a list has a name.
func contains(list, name string) bool { return strings.Contains(", "+list+", ", ", "+name+", ") }

// Landlock denies all that the kernel can deny, on each kernel: there is no right that the kernel knows and this
// program does not.
func TestKernelLandlock(t *testing.T) {
	ublktest.Kernel(t, ublktest.Plain, ublktest.EveryKernel)
	version, err := landlockVersion()
	if err != nil {
		t.Fatal(err)
	}
	refuses(t, landlockRole, func(a *act) bool { return a.landlock <= version })
	known := rightsOf(version)
	for bit := range 64 {
		for name, more := range map[string]handled{"files": {files: 1 << bit}, "net": {net: 1 << bit}, "scopes": {scopes: 1 << bit}} {
			fd, err := newRules(more)
			if err == nil {
				_ = unix.Close(int(fd))
			}
			if had := more.files&^known.files|more.net&^known.net|more.scopes&^known.scopes == 0; had != (err == nil) {
				t.Errorf("version %d: bit %d of %s is denied: %v, the kernel says %v", version, bit, name, had, err)
			}
		}
	}
}

// The list of system calls holds for all threads.
func TestKernelListOfCalls(t *testing.T) {
	ublktest.Kernel(t, ublktest.Plain, ublktest.OldestAndNewest)
	refuses(t, listRole, func(*act) bool { return true })
	refuses(t, askingRole, func(*act) bool { return true })
}

// limitBesideOther limits the calls while a thread has a list of its own.
func limitBesideOther() error {
	limited := make(chan error)
	go func() {
		runtime.LockOSThread()
		all := []unix.SockFilter{statement(unix.BPF_RET|unix.BPF_K, unix.SECCOMP_RET_ALLOW)}
		prog := unix.SockFprog{Len: 1, Filter: &all[0]}
		_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&prog)))
		if errno != 0 {
			limited <- errno
			return
		}
		limited <- nil
		select {} // with the list
	}()
	if err := <-limited; err != nil {
		return nil
	}
	return limitCalls(ServingCalls)
}

// It is an error if a thread keeps a list of its own.
func TestKernelListOfOneThread(t *testing.T) {
	ublktest.Kernel(t, ublktest.Plain, ublktest.OldestAndNewest)
	if got := strings.Join(run(t, otherListRole), " "); !strings.HasPrefix(got, "error: limit system calls of thread ") {
		t.Errorf("the process says %q", got)
	}
}

// Rings of all threads can do only what is on the list, if the kernel has such limits. The limits of
// the starter stay as they are.
func TestKernelLimitsOfRings(t *testing.T) {
	ublktest.Kernel(t, ublktest.Plain, ublktest.EveryKernel)
	err := ring.HasTaskRestrictions()
	if err != nil && !errors.Is(err, errors.ErrUnsupported) {
		t.Fatal(err)
	}
	ublktest.CheckAbility(t, ublktest.TaskRestrictions, err == nil)
	if err != nil {
		if got := strings.Join(run(t, ringsRole), " "); got != "error: "+err.Error() {
			t.Errorf("the process says %q, want the error %q", got, err)
		}
		return
	}
	refuses(t, ringsRole, func(*act) bool { return true })
	if first, again := run(t, ringsRole), run(t, againRole); !slices.Equal(first, again) {
		t.Errorf("under limits of its starter the process says %q, want %q", again, first)
	}
}
