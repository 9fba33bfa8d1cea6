package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// A fault in code that removes files or kills processes must not reach the files and
// processes of the machine. A test binary therefore runs in namespaces of its own: every
// file system except its scratch directory is read-only, /dev has a few harmless devices,
// /run, which holds the state of the machine's devices, is empty at first, and it sees
// only its own processes and its own network. The first process of the namespaces is this
// command, started with confinedCommand. When it or the command that started it ends, all
// processes in the namespaces end.

const (
	confinedCommand = "confined"
	exitNotStarted  = 125     // exit status of the confined command if it did not start the test binary
	maxData         = 4 << 30 // bytes of writable private memory for each process
	coverDirectory  = "covdata"
)

// harmless names the devices that a confined process gets.
var harmless = []string{"null", "zero", "full", "random", "urandom", "tty"}

// launchConfined runs a test on this machine's kernel, confined.
func launchConfined(ctx context.Context, e *execution) ([]byte, error) {
	arguments := append([]string{e.binary, "-test.timeout=" + e.limit.String()}, e.flags...)
	if e.profile != "" {
		arguments = append(arguments, "-test.coverprofile="+filepath.Join(e.scratch, "profile"))
	}
	if err := os.Mkdir(filepath.Join(e.scratch, coverDirectory), 0o700); err != nil {
		return nil, err
	}
	out, err := finish(ctx, func(ctx context.Context) (*exec.Cmd, error) {
		return confine(ctx, e.pkg.dir, e.scratch, arguments)
	}, e.limit, e.limit/10)
	if err == nil && e.profile != "" {
		err = joinProfiles(ctx, e)
	}
	return out, err
}

// joinProfiles reads the coverage profile of a test and adds the coverage of other
// processes of the same binary, which write it in another format.
func joinProfiles(ctx context.Context, e *execution) error {
	profile, err := os.ReadFile(filepath.Join(e.scratch, "profile"))
	if err != nil {
		return err
	}
	data := filepath.Join(e.scratch, coverDirectory)
	if left, err := os.ReadDir(data); err != nil || len(left) == 0 {
		return errors.Join(err, os.WriteFile(e.profile, profile, 0o644))
	}
	text := filepath.Join(e.scratch, "profile-of-others")
	if out, err := exec.CommandContext(ctx, "go", "tool", "covdata", "textfmt", "-i", data, "-o", text).CombinedOutput(); err != nil {
		return fmt.Errorf("read coverage of other processes: %w: %s", err, out)
	}
	others, err := os.ReadFile(text)
	if err != nil {
		return err
	}
	return os.WriteFile(e.profile, append(profile, others...), 0o644)
}

// confine returns a command that runs arguments confined in a directory.
func confine(ctx context.Context, dir, scratch string, arguments []string) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, append([]string{confinedCommand, scratch}, arguments...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "TMPDIR="+scratch, "GOCOVERDIR="+filepath.Join(scratch, coverDirectory))
	cmd.SysProcAttr = &unix.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWNET, Pdeathsig: unix.SIGKILL,
	}
	if id := os.Geteuid(); id != 0 {
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: id, HostID: id, Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: os.Getegid(), HostID: os.Getegid(), Size: 1}}
		cmd.SysProcAttr.AmbientCaps = []uintptr{unix.CAP_SYS_ADMIN, unix.CAP_NET_ADMIN}
	}
	return cmd, nil
}

// confined is the main function of the first process in the namespaces. It returns the
// exit status of the command that it runs.
func confined(arguments []string) int {
	if os.Getpid() != 1 || len(arguments) < 2 {
		fmt.Fprintln(os.Stderr, "mutants: confined: for internal use")
		return exitNotStarted
	}
	// The steps change this thread only, and the child is a clone of this thread.
	runtime.LockOSThread()
	cmd := exec.Command(arguments[1], arguments[2:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	err := restrict(arguments[0])
	if err == nil {
		err = cmd.Run()
	}
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit) && exit.Exited():
		return exit.ExitCode()
	case errors.As(err, &exit):
		fmt.Fprintln(os.Stderr, "mutants: confined:", exit)
		return 1
	case err != nil:
		fmt.Fprintln(os.Stderr, "mutants: confined:", err)
		return exitNotStarted
	}
	return 0
}

// restrict takes access to everything from this thread that a test must not touch.
func restrict(scratch string) error {
	steps := []struct {
		what string
		do   func() error
	}{
		{"separate mounts", func() error { return unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "") }},
		{"bind scratch directory", func() error { return unix.Mount(scratch, scratch, "", unix.MS_BIND, "") }},
		{"make devices", func() error { return makeDevices(filepath.Join(scratch, "dev")) }},
		{"make file systems read-only", func() error { return setReadOnly("/", unix.AT_RECURSIVE, true) }},
		{"make scratch directory writable", func() error { return setReadOnly(scratch, 0, false) }},
		{"mount an empty /run", func() error { return unix.Mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "size=16m") }},
		{"make /dev writable", func() error { return setReadOnly("/dev", 0, false) }},
		{"mount /proc", func() error { return unix.Mount("proc", "/proc", "proc", 0, "") }},
		{"bind /proc/sys", func() error { return unix.Mount("/proc/sys", "/proc/sys", "", unix.MS_BIND, "") }},
		{"make /proc/sys read-only", func() error { return setReadOnly("/proc/sys", 0, true) }},
		{"start the loopback interface", startLoopback},
		{"limit memory", func() error { return unix.Setrlimit(unix.RLIMIT_DATA, &unix.Rlimit{Cur: maxData, Max: maxData}) }},
		{"drop capabilities", func() error { return unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) }},
	}
	for _, step := range steps {
		if err := step.do(); err != nil {
			return fmt.Errorf("%s: %w", step.what, err)
		}
	}
	return nil
}

func setReadOnly(path string, flags uint, readOnly bool) error {
	attr := &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	if !readOnly {
		attr = &unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_RDONLY}
	}
	return unix.MountSetattr(unix.AT_FDCWD, path, flags, attr)
}

func startLoopback() error {
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(socket) }()
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(socket, unix.SIOCSIFFLAGS, request)
}

// makeDevices mounts a file system with the harmless devices and shared memory at dir,
// and moves it to /dev.
func makeDevices(dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID, "mode=755,size=256m"); err != nil {
		return err
	}
	for _, name := range harmless {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
			return err
		}
		if err := unix.Mount(filepath.Join("/dev", name), filepath.Join(dir, name), "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "shm"), 0o777); err != nil {
		return err
	}
	if err := os.Symlink("/proc/self/fd", filepath.Join(dir, "fd")); err != nil {
		return err
	}
	if err := unix.Mount(dir, "/dev", "", unix.MS_MOVE, ""); err != nil {
		return err
	}
	return os.Remove(dir)
}
