package daemon

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/confine"
)

// selfPath is this program, even if another has taken its place meanwhile.
const selfPath = "/proc/self/exe"

// launch is a role to be played by another process, or by this one from now on.
type launch struct {
	role  role
	files descriptors
	// task returns the task, given warnings of protections that are not available.
	task func(warnings []string) any
	name string // what ps shows behind the role
}

// start starts a confined server in a process and a session of its own, with nothing of
// this process's but its files and standard error. The message is there when the process
// starts.
func (l *launch) start(errOut *os.File) (*os.Process, error) {
	var process *os.Process
	err := confine.OnThread(func(warnings []string) error {
		told, err := l.inMemory(warnings)
		if err != nil {
			return err
		}
		defer func() { _ = told.Close() }()
		process, err = l.startConfined(told, errOut)
		return err
	})
	return process, err
}

// startSilently is start for a process that waits for its message at a stream, one of the
// files. It returns the message.
func (l *launch) startSilently(stream *os.File) (process *os.Process, text []byte, err error) {
	err = confine.OnThread(func(warnings []string) error {
		if text, err = encode(l.task(warnings), l.files); err != nil {
			return err
		}
		process, err = l.startConfined(stream, nil)
		return err
	})
	return process, text, err
}

// startConfined starts a process with what the calling thread has.
func (l *launch) startConfined(told, errOut *os.File) (*os.Process, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = null.Close() }()
	if errOut == nil {
		errOut = null
	}
	return os.StartProcess(selfPath, l.args(told), &os.ProcAttr{
		Dir: "/", Env: serverEnv(os.Environ()), Files: l.table(null, null, errOut, told),
		Sys: &syscall.SysProcAttr{Setsid: true}, // so that no signal of a terminal reaches it
	})
}

// become makes this process a confined server: it executes this program again. It returns
// only if that fails.
func (l *launch) become() error {
	return confine.OnThread(func(warnings []string) error { return l.execute(selfPath, warnings) })
}

// execute executes a program in place of this one, with what the calling thread has. It
// returns only if that fails, with nothing changed.
func (l *launch) execute(program string, warnings []string) error {
	told, err := l.inMemory(warnings)
	if err != nil {
		return err
	}
	defer func() { _ = told.Close() }()
	passed := append(l.open(), told)
	setCloseOnExec(passed, false)
	err = unix.Exec(program, l.args(told), serverEnv(os.Environ()))
	setCloseOnExec(passed, true)
	return fmt.Errorf("execute %s: %w", program, err)
}

// call has a short-lived child do its task, and waits for its end. The child does what a
// server must not do itself, with the privileges of the server.
func (l *launch) call() (*os.ProcessState, error) {
	told, err := l.inMemory(nil)
	if err != nil {
		return nil, err
	}
	defer func() { _ = told.Close() }()
	process, err := os.StartProcess(selfPath, l.args(told), &os.ProcAttr{
		Env: serverEnv(os.Environ()), Files: l.table(nil, nil, os.Stderr, told),
	})
	if err != nil {
		return nil, err
	}
	return process.Wait()
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
	if l.name != "" {
		args = append(args, l.name)
	}
	return args
}

// open returns the files that are there.
func (l *launch) open() []*os.File {
	var files []*os.File
	for _, f := range l.files {
		if f != nil {
			files = append(files, f)
		}
	}
	return files
}

// table returns the files of a new process. Each keeps its number, so that a message
// says the same to a new process and to a program that takes this one's place.
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

// serverEnv leaves of an environment what the Go runtime reads. The rest is
// the caller's affair.
func serverEnv(environ []string) []string {
	env := []string{}
	for _, v := range environ {
		if strings.HasPrefix(v, "GO") {
			env = append(env, v)
		}
	}
	return env
}

// callFailed returns why a child has not done its task, nil if it has.
func callFailed(state *os.ProcessState, err error) error {
	if err == nil && !state.Success() {
		err = errors.New(state.String())
	}
	return err
}
