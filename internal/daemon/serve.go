package daemon

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/confine"
	"github.com/ublk-loop/ublk-loop/internal/rawname"
	"github.com/ublk-loop/ublk-loop/loop"
)

// ServeOptions are the options of a server of many devices.
type ServeOptions struct {
	Socket     string
	OnCrash    loop.OnCrash // of devices added without --on-crash; empty for the default
	LogFile    string
	HasLogFile bool // LogFile is given
	Supervise  bool
	Metrics    string // HOST:PORT, empty for none
	// Getenv reads the environment, in which the service manager passes its settings.
	Getenv func(string) string
}

// Serve makes this process a server of many devices, or the supervisor of one, on a confined
// thread. It returns only if that fails.
func Serve(o ServeOptions) error {
	unix.Umask(0o077) // also of the socket's directory and the log
	task, files, err := o.open()
	if err != nil {
		return err
	}
	err = o.run(task, files)
	if err != nil {
		removeSocket(files[lockFile], task.Socket)
	}
	return err
}

// run makes this process the server, or its supervisor.
func (o *ServeOptions) run(task *manyTask, files descriptors) error {
	if err := confine.CloseInherited(); err != nil {
		return err
	}
	task.Warnings = confine.ProtectFromOOM(os.Getpid())
	if o.Supervise {
		return launchMany(superRole, task, files).become()
	}
	return launchMany(manyRole, task, files).become()
}

// launchMany returns how to start a server of many devices, or its supervisor.
func launchMany(r role, task *manyTask, files descriptors) *launch {
	return &launch{role: r, files: files, task: func(warnings []string) any {
		told := *task
		told.Warnings = append(warnings, task.Warnings...)
		told.SocketBytes, told.ProgramBytes = rawname.Bytes(told.Socket), rawname.Bytes(told.Program)
		return told
	}}
}

// open opens the files and sockets of the options.
func (o *ServeOptions) open() (*manyTask, descriptors, error) {
	t, files := &manyTask{OnCrash: o.OnCrash}, descriptors{}
	var err error
	if t.Program, err = os.Executable(); err != nil {
		return nil, nil, fmt.Errorf("find this program: %w", err)
	}
	if files[notifyFile], err = openNotify(o.Getenv("NOTIFY_SOCKET")); err != nil {
		return nil, nil, err
	}
	if t.OnCrash == "" {
		t.OnCrash = loop.CrashFail
		if files[notifyFile] != nil || o.Supervise {
			t.OnCrash = loop.CrashReissue
		}
	}
	if t.Watchdog, err = watchdogPeriod(o.Getenv, os.Getpid()); err != nil {
		return nil, nil, err
	}
	if files[rootFile], err = openRoot(); err != nil {
		return nil, nil, err
	}
	if o.HasLogFile {
		if files[logFile], err = openLogFile(o.LogFile); err != nil {
			return nil, nil, err
		}
	}
	if o.Metrics != "" {
		if files[metricsFile], err = listenTCP(o.Metrics); err != nil {
			return nil, nil, err
		}
	}
	if files[socketFile], err = activatedSocket(o.Getenv, os.Getpid()); err != nil || files[socketFile] != nil {
		return t, files, err
	}
	// The server has another working directory when it removes the socket.
	if t.Socket, err = filepath.Abs(o.Socket); err != nil {
		return nil, nil, fmt.Errorf("listen at %s: %w", o.Socket, err)
	}
	files[lockFile], files[socketFile], err = listen(t.Socket)
	return t, files, err
}

// openRoot returns the root directory, in which the server later finds files
// independently of mounts made meanwhile.
func openRoot() (*os.File, error) {
	fd, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open /: %w", err)
	}
	return os.NewFile(uintptr(fd), "/"), nil
}
