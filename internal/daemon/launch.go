package daemon

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/confine"
)

// selfPath leads to the running program, even if its file was replaced.
const selfPath = "/proc/self/exe"

// launch describes how to start a role in another process, or in this one.
type launch struct {
	role  role
	files descriptors
	// task returns the task. Its argument are the warnings of unavailable protections.
	task func(warnings []string) any
	name string // the name that ps shows after the role
	// survives says that the process outlives the change of root and the end of all other
	// processes at a shutdown.
	survives bool
}

// manager reports whether a service manager starts the role.
func (l *launch) manager() confine.Manager { return confine.Manager(l.files[notifyFile] != nil) }

// starts says what the role needs to start a process without privileges.
func (l *launch) starts() confine.Starts {
	switch l.role {
	case singleRole:
		return confine.StartsOnce
	case manyRole, superRole:
		return confine.StartsAgain
	}
	return confine.StartsNothing
}

// start starts a server in a process and session of its own. This process must be confined, because the server inherits
// that. Of the descriptors it inherits only the files of the launch and standard error. The message is complete before the
// process starts.
func (l *launch) start(errOut *os.File) (*os.Process, error) {
	told, err := l.inMemory(nil)
	if err != nil {
		return nil, err
	}
	defer func() { _ = told.Close() }()
	return l.startConfined(told, errOut)
}

// startSilently starts a process that waits for its message at stream, one of the files.
// It returns the message, which the caller has to send.
func (l *launch) startSilently(stream *os.File) (process *os.Process, text []byte, err error) {
	err = confine.OnThread(l.manager(), l.starts(), func(warnings []string) error {
		if text, err = encode(l.task(warnings), l.files); err != nil {
			return err
		}
		process, err = l.startConfined(stream, nil)
		return err
	})
	return process, text, err
}

// startConfined starts a process with the privileges of the calling thread.
func (l *launch) startConfined(told, errOut *os.File) (*os.Process, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = null.Close() }()
	if errOut == nil {
		errOut = null
	}
	return os.StartProcess(l.program(), l.args(told), &os.ProcAttr{
		Dir: "/", Env: serverEnv(os.Environ()), Files: l.table(null, null, errOut, told),
		Sys: &syscall.SysProcAttr{Setsid: true}, // no signal of a terminal reaches it
	})
}

// program returns the path of the program to start: one of the files, or this program.
func (l *launch) program() string {
	if f := l.files[programFile]; f != nil {
		return fmt.Sprintf("/proc/self/fd/%d", f.Fd()) // the new process has the same number for it
	}
	return selfPath
}

// become makes this process a confined server by executing this program again. It returns
// only if that fails.
func (l *launch) become() error {
	return confine.OnThread(l.manager(), l.starts(), func(warnings []string) error { return l.execute(selfPath, warnings) })
}

// execute replaces this program with another, with the privileges of the calling thread.
// It returns only an error, and has changed nothing then.
func (l *launch) execute(program string, warnings []string) error {
	told, err := l.inMemory(warnings)
	if err != nil {
		return err
	}
	defer func() { _ = told.Close() }()
	passed := append(l.open(), told)
	syscall.ForkLock.Lock() // otherwise a process that starts now would inherit the files
	defer syscall.ForkLock.Unlock()
	setCloseOnExec(passed, false)
	err = unix.Exec(program, l.args(told), serverEnv(os.Environ()))
	setCloseOnExec(passed, true)
	return fmt.Errorf("execute %s: %w", program, err)
}

// call runs a task in a child process, and waits for its end.
func (l *launch) call() (*os.ProcessState, error) {
	process, err := l.startChild()
	if err != nil {
		return nil, err
	}
	return process.Wait()
}

// startChild starts a child process with the server's privileges. The child does the
// operations that a server must not do itself.
func (l *launch) startChild() (*os.Process, error) {
	told, err := l.inMemory(nil)
	if err != nil {
		return nil, err
	}
	defer func() { _ = told.Close() }()
	return os.StartProcess(selfPath, l.args(told), &os.ProcAttr{
		Env: serverEnv(os.Environ()), Files: l.table(nil, nil, os.Stderr, told),
	})
}

func (l *launch) inMemory(warnings []string) (*os.File, error) {
	text, err := encode(l.task(warnings), l.files)
	if err != nil {
		return nil, err
	}
	return inMemory(text)
}

func (l *launch) args(told *os.File) []string {
	args := []string{"ublk-loop", l.role.name, strconv.Itoa(int(told.Fd()))}
	if l.survives {
		args[0] = "@ublk-loop" // see process.SurvivesShutdown
	}
	if l.name != "" {
		args = append(args, l.name)
	}
	return args
}

// open returns the files that are not nil.
func (l *launch) open() []*os.File {
	var files []*os.File
	for _, f := range l.files {
		if f != nil {
			files = append(files, f)
		}
	}
	return files
}

// table returns the files of a new process. Each file keeps its number, so that one
// message suits both a new process and a program that replaces this one.
func (l *launch) table(in, out, errOut, told *os.File) []*os.File {
	table := []*os.File{in, out, errOut}
	for _, f := range append(l.open(), told) {
		for fd := int(f.Fd()); fd >= len(table); {
			table = append(table, nil)
		}
		table[f.Fd()] = f
	}
	return table
}

func setCloseOnExec(files []*os.File, on bool) {
	flag := 0
	if on {
		flag = unix.FD_CLOEXEC
	}
	for _, f := range files {
		_, _ = unix.FcntlInt(f.Fd(), unix.F_SETFD, flag)
	}
}

// keptVariables serve to diagnose a server. The other variables of the Go runtime
// (GOGC, GOMEMLIMIT, GOMAXPROCS) would tune the server for another program.
var keptVariables = []string{"GODEBUG", "GOTRACEBACK", "GOCOVERDIR", "GORACE"}

// serverEnv returns the variables that a server keeps.
func serverEnv(environ []string) []string {
	env := []string{}
	for _, v := range environ {
		if name, _, _ := strings.Cut(v, "="); slices.Contains(keptVariables, name) {
			env = append(env, v)
		}
	}
	return env
}

// callFailed returns the error of a child, or nil if the child succeeded.
func callFailed(state *os.ProcessState, err error) error {
	if err == nil && !state.Success() {
		err = errors.New(state.String())
	}
	return err
}
