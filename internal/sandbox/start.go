package sandbox

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Process is a process in a sandbox.
type Process struct {
	process *os.Process
	// calls has functions for the starting thread, which is in the mount namespace of the
	// process.
	calls chan func()
	ended chan struct{} // closed when the process has ended
	state *os.ProcessState
}

// Command says what to start.
type Command struct {
	Path  string
	Args  []string // with the name of the program
	Env   []string
	Files []*os.File // as in os.ProcAttr
	User  uint32     // user and group
}

// namespaces are the namespaces of the process, besides its mount namespace.
const namespaces = unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS

// Start starts a process without privileges. It needs CAP_SYS_ADMIN, CAP_SETUID, CAP_SETGID,
// CAP_SETPCAP and CAP_KILL. The process ends with the caller's, for which that keeps CAP_KILL. A
// process that the caller may not signal has to end when the caller closes its files.
func Start(c *Command) (*Process, error) {
	p := &Process{calls: make(chan func()), ended: make(chan struct{})}
	started := make(chan error)
	startThread(func() { p.run(c, started) }) // ends with the process
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start a process in a sandbox: %w", err)
	}
	return p, nil
}

// run is the starting thread. It ends with the process. If it ends before, the kernel kills the
// process. Its namespace and capabilities differ from those of other threads.
func (p *Process) run(c *Command, started chan<- error) {
	err := p.start(c)
	started <- err
	if err != nil {
		return
	}
	for {
		select {
		case call := <-p.calls:
			call()
		case <-p.ended:
			return
		}
	}
}

func (p *Process) start(c *Command) error {
	if err := prepareThread(); err != nil {
		return err
	}
	// The new process shares the memory of this one until its exec, so that its change of user makes this
	// one undumpable (commit_creds in kernel/cred.c).
	dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Prctl(unix.PR_SET_DUMPABLE, uintptr(dumpable), 0, 0, 0) }()
	p.process, err = os.StartProcess(c.Path, c.Args, &os.ProcAttr{
		Dir: "/", Env: c.Env, Files: c.Files,
		Sys: &syscall.SysProcAttr{
			Cloneflags: namespaces,
			Credential: &syscall.Credential{Uid: c.User, Gid: c.User, Groups: []uint32{}},
			Setsid:     true, // no signal of a terminal reaches it
			Pdeathsig:  syscall.SIGKILL,
		},
	})
	if err != nil {
		return err
	}
	// Without this permission (CAP_KILL) the process would outlive the caller's.
	killable := p.process.Signal(syscall.Signal(0))
	go func() { // ends with the process
		p.state, _ = p.process.Wait()
		close(p.ended)
	}()
	if killable != nil {
		return fmt.Errorf("signal it: %w", killable)
	}
	return nil
}

// prepareThread gives the calling thread what the process must not have otherwise: a mount
// namespace, a session keyring without keys, and a bounding set without capabilities. A process of another user than
// root gets only ambient capabilities at its exec (capabilities(7)).
func prepareThread() error {
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("make a mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := leaveKeyring(); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("clear ambient capabilities: %w", err)
	}
	for c := uintptr(0); ; c++ {
		err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0)
		if errors.Is(err, unix.EINVAL) { // the first number that is not a capability
			break
		}
		if err != nil {
			return fmt.Errorf("drop capability %d: %w", c, err)
		}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	return nil
}

// leaveKeyring gives the calling thread an empty session keyring. A process that has the keyring of the starter may read
// the keys in it, whatever its user (session-keyring(7)). There is nothing to leave without keyrings in the kernel, or
// if a list of system calls forbids them, because that list is inherited.
func leaveKeyring() error {
	_, err := unix.KeyctlInt(unix.KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0, 0) // without a name
	if err != nil && !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("make a session keyring: %w", err)
	}
	return nil
}

// Empty gives the process an empty root directory.
func (p *Process) Empty() error {
	result := make(chan error, 1)
	if !p.call(func() { result <- emptyRoot() }) {
		return os.ErrProcessDone
	}
	if err := <-result; err != nil {
		return fmt.Errorf("empty the mount namespace: %w", err)
	}
	return nil
}

// emptyRoot replaces the root directory of all processes in the thread's mount namespace by an empty
// one, and detaches all mounts (pivot_root(2)).
func emptyRoot() error {
	const place = "/proc" // any directory that exists everywhere
	if err := unix.Mount("none", place, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "size=4k,nr_inodes=2,mode=0"); err != nil {
		return fmt.Errorf("mount an empty directory: %w", err)
	}
	if err := unix.Chdir(place); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("detach the mounts: %w", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return err
	}
	return unix.Mount("", "/", "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
}

// Kill kills the process.
func (p *Process) Kill() { _ = p.process.Kill() } // fails only if the process has ended

// call calls a function on the starting thread. It reports false if the process has ended.
func (p *Process) call(f func()) bool {
	select {
	case p.calls <- f:
		return true
	case <-p.ended:
		return false
	}
}

// Ended returns a channel that is closed when the process has ended.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// State returns how the process ended. It is valid when Ended is closed.
func (p *Process) State() *os.ProcessState { return p.state }

// Pid returns the number of the process.
func (p *Process) Pid() int { return p.process.Pid }
