package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/internal/confine"
	"github.com/ublk-loop/ublk-loop/internal/control"
	"github.com/ublk-loop/ublk-loop/loop"
)

// manyCommand is the name of the command that serves many devices. It is for
// serve alone, which executes this program with it, and a descriptor to read
// the job from.
const manyCommand = "server-of-serve"

// serveJob is what a server of many devices is given, as JSON. Its descriptors
// are numbers in the server, -1 for none.
type serveJob struct {
	OnCrash  loop.OnCrash `json:"on_crash"`
	SocketFD int          `json:"socket_fd"` // listens
	RootFD   int          `json:"root_fd"`   // the directory that paths are looked up from
	LockFD   int          `json:"lock_fd"`   // held while the socket is this server's
	LogFD    int          `json:"log_fd"`
	NotifyFD int          `json:"notify_fd"`
	// MetricsFD listens on TCP.
	MetricsFD int           `json:"metrics_fd"`
	Watchdog  time.Duration `json:"watchdog"` // how often the manager wants to hear, 0 for never
	Socket    string        `json:"socket"`   // to be removed at the end, "" for the manager's
	Program   string        `json:"program"`  // what an upgrade executes
	Warnings  []string      `json:"warnings"`

	// Generation is how many servers there were in this process before, by
	// upgrades. What the last one had, by device: the connections of leases, until
	// when a device stays without, and the devices' files.
	Generation int                  `json:"generation"`
	Leases     map[uint32]int       `json:"leases"`
	Until      map[uint32]time.Time `json:"until"`
	Files      map[uint32]int       `json:"files"`

	// The descriptors on this side, nil for none.
	socket, root, lock, log, notify, metrics *os.File

	holders map[uint32]control.Holder
	files   map[uint32]*os.File
}

type serveOptions struct {
	socket     string
	onCrash    loop.OnCrash
	logFile    string
	hasLogFile bool // logFile is given
	supervise  bool
	metrics    string
}

func newServeCommand(a *app) *cobra.Command {
	var opts serveOptions
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve many devices in this process, for add and for other programs",
		Long: "Serve many devices in this process, until SIGINT or SIGTERM: those that add asks\n" +
			"for while it runs, and those of programs that speak HTTP at its socket.",
		Args: arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts.hasLogFile = cmd.Flags().Changed("log-file")
			return a.serve(opts)
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&opts.socket, "socket", client.DefaultSocket, "listen at `PATH`, unless the service manager has a socket for this")
	f.Var(onCrashFlag{&opts.onCrash}, "on-crash", "what devices get that are added without (reissue where something starts the server\nagain: a service manager, or --supervise; else fail)")
	f.BoolVar(&opts.supervise, "supervise", false, "serve in another process, and start it again when it was killed")
	f.StringVar(&opts.logFile, "log-file", "", "append the log to `FILE`, as lines of JSON")
	f.StringVar(&opts.metrics, "metrics", "", "have metrics for Prometheus at `HOST:PORT`, too, for everybody who can connect")
	return cmd
}

// replaceWithMany makes this process a server of many devices, on a confined
// thread, or the supervisor of one. It returns only if that fails, or when a
// supervised server has ended.
func replaceWithMany(opts serveOptions) error {
	j, err := opts.job()
	if err != nil {
		return err
	}
	if err := confine.CloseInherited(); err != nil {
		return err
	}
	oom := confine.ProtectFromOOM(os.Getpid())
	confine.RaiseFileLimit()
	if opts.supervise {
		j.Warnings = oom
		return supervise(j)
	}
	return confine.OnThread(func(warnings []string) error {
		j.Warnings = append(warnings, oom...)
		return j.execute(selfPath)
	})
}

// job opens what the options name.
func (o *serveOptions) job() (*serveJob, error) {
	j := &serveJob{OnCrash: o.onCrash}
	var err error
	if j.Program, err = os.Executable(); err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	if j.notify, err = openNotify(os.Getenv("NOTIFY_SOCKET")); err != nil {
		return nil, err
	}
	if j.OnCrash == "" {
		j.OnCrash = loop.CrashFail
		if j.notify != nil || o.supervise {
			j.OnCrash = loop.CrashReissue
		}
	}
	if j.Watchdog, err = watchdogPeriod(os.Getenv, os.Getpid()); err != nil {
		return nil, err
	}
	if j.root, err = openRoot(); err != nil {
		return nil, err
	}
	if o.hasLogFile {
		if j.log, err = openLogFile(o.logFile); err != nil {
			return nil, err
		}
	}
	if o.metrics != "" {
		if j.metrics, err = listenTCP(o.metrics); err != nil {
			return nil, err
		}
	}
	if j.socket, err = activatedSocket(os.Getenv, os.Getpid()); err != nil || j.socket != nil {
		return j, err
	}
	j.Socket = o.socket
	j.lock, j.socket, err = listen(o.socket)
	return j, err
}

// openRoot returns the root directory, from which files can be found later,
// whatever is mounted by then.
func openRoot() (*os.File, error) {
	fd, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open /: %w", err)
	}
	return os.NewFile(uintptr(fd), "/"), nil
}

// activatedSocket returns the socket that the service manager listens at for
// this process (sd_listen_fds(3)), nil for none.
func activatedSocket(getenv func(string) string, pid int) (*os.File, error) {
	if getenv("LISTEN_PID") != strconv.Itoa(pid) {
		return nil, nil
	}
	if n := getenv("LISTEN_FDS"); n != "1" {
		return nil, fmt.Errorf("LISTEN_FDS is %q: one socket, please: %w", n, unix.EINVAL)
	}
	return received(3, "socket"), nil // SD_LISTEN_FDS_START
}

// watchdogPeriod returns how often the service manager wants to hear from this
// process, 0 for never: twice in the time after which it would end it
// (sd_watchdog_enabled(3)).
func watchdogPeriod(getenv func(string) string, pid int) (time.Duration, error) {
	text := getenv("WATCHDOG_USEC")
	if owner := getenv("WATCHDOG_PID"); text == "" || owner != "" && owner != strconv.Itoa(pid) {
		return 0, nil
	}
	usec, err := strconv.ParseUint(text, 10, 53)
	if err != nil || usec == 0 {
		return 0, fmt.Errorf("WATCHDOG_USEC is %q: %w", text, unix.EINVAL)
	}
	return time.Duration(usec) * time.Microsecond / 2, nil
}

// listen makes a socket at a path that only its owner may connect to, in place
// of one that a server has left which is no more. The lock says whether there
// is one: it ends with the server, however that ends.
func listen(path string) (lock, socket *os.File, err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, nil, fmt.Errorf("make socket: %w", err)
	}
	lock, err = os.OpenFile(path+".lock", os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("make socket: %w", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("listen at %s: another server does: %w", path, err), lock.Close())
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, nil, errors.Join(err, lock.Close())
	}
	defer unix.Umask(unix.Umask(0o177))
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, nil, errors.Join(err, lock.Close())
	}
	l.SetUnlinkOnClose(false) // it is the server's, not this listener's
	socket, err = l.File()
	return lock, socket, errors.Join(err, l.Close())
}

// listenTCP makes a socket for the metrics.
func listenTCP(address string) (*os.File, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	tcp, ok := l.(*net.TCPListener)
	if !ok {
		return nil, errors.Join(unix.EPROTOTYPE, l.Close())
	}
	socket, err := tcp.File()
	return socket, errors.Join(err, l.Close())
}

// execute replaces this program by a server with the job. It returns only if
// that fails.
func (j *serveJob) execute(program string) error {
	j.SocketFD, j.RootFD, j.LockFD = inherit(j.socket), inherit(j.root), inherit(j.lock)
	j.LogFD, j.NotifyFD, j.MetricsFD = inherit(j.log), inherit(j.notify), inherit(j.metrics)
	j.handOver()
	fd, err := inMemory(j)
	if err != nil {
		return err
	}
	args := []string{"ublk-loop", manyCommand, strconv.Itoa(inherit(fd))}
	err = unix.Exec(program, args, serverEnv(os.Environ()))
	return fmt.Errorf("execute %s: %w", program, err)
}
