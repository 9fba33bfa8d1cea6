package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/cmd/ublk-loop/internal/helptext"
	"github.com/ublk-loop/ublk-loop/internal/daemon"
	"github.com/ublk-loop/ublk-loop/internal/modprobe"
	"github.com/ublk-loop/ublk-loop/internal/report"
	"github.com/ublk-loop/ublk-loop/internal/sandbox"
	"github.com/ublk-loop/ublk-loop/loop"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// app is the environment of the commands. Tests replace its parts.
type app struct {
	in          io.Reader
	out, errOut io.Writer
	// open opens the driver. It returns an error that wraps ublk.ErrNoDriver if the
	// driver is not loaded.
	open func() (driver, error)
	// load loads the driver, unless it is loaded.
	load func() error
	// start starts a server in the background. become turns this process into the server,
	// and returns only an error.
	start  func(context.Context, *daemon.Job) (daemon.Pending, error)
	become func(*daemon.Job) error
	// serve turns this process into a server of many devices, or into the supervisor of
	// one. It returns when the server ends.
	serve func(daemon.ServeOptions) error
	// oci executes a container runtime in this process, and returns only an error.
	oci func(runtime string, args []string) error
	// server is the server of many devices, if it runs.
	server server
	// stats returns the counters of the server at a socket.
	stats func(ctx context.Context, socket string) (client.Stats, error)
	// sandbox returns what the kernel has for the sandbox of servers.
	sandbox func() []sandbox.Part
	// snapshotter executes the snapshotter in this process, and returns only an error.
	snapshotter func(args []string) error
}

// server is the part of the server's client that the commands use.
type server interface {
	Keep(ctx context.Context, d *client.Device) error
	Clear(ctx context.Context, d *client.Device) error
}

// driver is the part of the kernel's driver that the commands use.
type driver interface {
	List() ([]client.Device, error)
	// Device returns one device, without a look at the others, or an error that wraps ENODEV.
	Device(id uint32) (client.Device, error)
	// IDs returns the numbers of all ublk devices, whichever program has made them.
	IDs() ([]uint32, error)
	Find(file *os.File) ([]client.Device, error)
	WaitsForServer(file *os.File, cfg *loop.Config) (bool, error)
	// CheckFree returns an error that wraps EBUSY if a device that waits for its next server
	// has the file.
	CheckFree(file *os.File, readOnly bool) error
	Detach(id uint32, opts loop.DetachOptions) error
	Resize(id uint32, opts loop.ResizeOptions) error
	Features() (ublk.Features, error)
	Close() error
}

func newApp() *app {
	return &app{
		in: os.Stdin, out: os.Stdout, errOut: os.Stderr,
		open: openKernel, load: modprobe.Default().Load, start: daemon.Start, become: daemon.BecomeSingle, serve: daemon.Serve, oci: replaceWithRuntime,
		snapshotter: replaceWithSnapshotter, sandbox: sandbox.Parts, server: client.New(client.DefaultSocket),
		stats: func(ctx context.Context, socket string) (client.Stats, error) { return client.New(socket).Stats(ctx) },
	}
}

// run carries out a command line, and returns the exit status. A command whose output is lost
// has failed, also if it does not look at the result of its writes.
func (a *app) run(args []string) int {
	out := &output{Writer: a.out}
	a.out = out
	defer func() { a.out = out.Writer }()
	cmd := newRootCommand(a)
	checkCobraCommands(cmd)
	if len(args) > 0 && strings.HasPrefix(args[0], cobra.ShellCompRequestCmd) {
		helptext.Completion(cmd, "/dev")
	}
	cmd.SetArgs(args)
	err := cmd.Execute()
	if err == nil {
		err = out.err
	}
	return report.Exit(a.errOut, err)
}

// output is the output of a command. It keeps the first error of its writes, because cobra
// ignores the errors of help.
type output struct {
	io.Writer
	err error
}

// Write implements io.Writer.
func (o *output) Write(text []byte) (int, error) {
	n, err := o.Writer.Write(text)
	if o.err == nil {
		o.err = err
	}
	return n, err
}

// Unwrap returns the writer without the error.
func (o *output) Unwrap() io.Writer { return o.Writer }

// screen returns the output itself, which can be a terminal.
func (a *app) screen() io.Writer {
	if o, ok := a.out.(*output); ok {
		return o.Writer
	}
	return a.out
}

// nameIfClosed names a new device in a warning if standard output may be closed. Otherwise its
// path would be unknown. This is a warning and not an error, because the caller may also discard the
// output on purpose.
func (a *app) nameIfClosed(device *client.Device) {
	if report.MayBeClosed(a.out) {
		report.Warnings(a.errOut, device.Device, []string{"the device is served, but standard output is closed or discarded"})
	}
}

// report prints an error.
func (a *app) report(err error) { report.Error(a.errOut, err) }

func newRootCommand(a *app) *cobra.Command {
	var showVersion bool
	root := &cobra.Command{
		Use:   "ublk-loop",
		Short: "Make a block device from a file, a partition or a disk",
		Long: "ublk-loop makes a block device, /dev/ublkbN, from a file, a partition or a disk, " +
			"through the kernel's ublk driver and io_uring.",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          checkCommand,
		// "ls" differs from many short names by two letters.
		SuggestionsMinimumDistance: 1,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if showVersion {
				return runVersion(a.out, moduleVersion(), kernelRelease())
			}
			return helpOnError(cmd)
		},
	}
	root.Flags().BoolVar(&showVersion, "version", false, "do the same as the command version")
	root.SetOut(a.out)
	root.SetErr(a.errOut)
	root.SetFlagErrorFunc(flagError)
	helptext.Help(root, func() int { return helptext.Width(a.screen()) })
	root.AddCommand(newAddCommand(a), newDelCommand(a), newListCommand(a), newResizeCommand(a), newMergeCommand(a), newForkCommand(a), newRecoverCommand(a), newKeyCommand(a), newServeCommand(a), newUpgradeCommand(a), newTopCommand(a),
		newLosetupCommand(a), newOCICommand(a), newHookCommand(a), newSnapshotterCommand(a), newVerityCommand(a), newCowCommand(a), newFeaturesCommand(a), newVersionCommand(a))
	return root
}

// checkCommand refuses a first argument that is not a command. The hint has the commands that
// the user may mean.
func checkCommand(root *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	hint := helpHint(root)
	if meant := root.SuggestionsFor(args[0]); args[0] != "" && len(meant) > 0 {
		hint = fmt.Sprintf("did you mean %s? %s", strings.Join(meant, " or "), hint)
	}
	return report.Usage(fmt.Errorf("unknown command %q", args[0]), hint)
}

// helpOnError prints the help to standard error, because the command is missing.
func helpOnError(cmd *cobra.Command) error {
	cmd.SetOut(cmd.ErrOrStderr())
	if err := cmd.Help(); err != nil {
		return err
	}
	return report.ErrNoCommand
}

// flagError rewords the error of an invalid flag.
func flagError(cmd *cobra.Command, err error) error {
	var invalid *pflag.InvalidValueError
	if errors.As(err, &invalid) {
		err = fmt.Errorf("--%s %q: %w", invalid.GetFlag().Name, invalid.GetValue(), errors.Unwrap(invalid))
	}
	return report.Usage(err, helpHint(cmd))
}

func helpHint(cmd *cobra.Command) string { return "see " + cmd.CommandPath() + " --help" }

// arguments checks the number of a command's arguments: at least low, and at most high
// unless high is negative.
func arguments(low, high int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < low:
			return report.Usage(fmt.Errorf("%s: %s is missing", cmd.Name(), what), helpHint(cmd))
		case high >= 0 && len(args) > high:
			return report.Usage(fmt.Errorf("%s: unexpected argument %q", cmd.Name(), args[high]), helpHint(cmd))
		}
		return nil
	}
}

// interruptPatience bounds the time for which an interrupted command finishes a change. A device
// that hangs may never let it.
const interruptPatience = 5 * time.Second

// finish calls a function that changes devices. An interrupt ends its context, and the function
// then finishes the device that it works on.
func finish(parent context.Context, change func(context.Context) error) error {
	ctx, stop := interruptible(parent)
	defer stop()
	return finishSoon(ctx, change)
}

// finishSoon calls a function that changes devices. When the context ends, the function finishes the
// device that it works on. It is abandoned if that takes long. An abandoned change, like one of a
// killed process, may leave the lock of the device's state.
func finishSoon(ctx context.Context, change func(context.Context) error) error {
	changed := make(chan error, 1)
	go func() { changed <- change(ctx) }() // received below, or ends with the process
	select {
	case err := <-changed:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-changed:
		return err
	case <-time.After(interruptPatience):
		return context.Cause(ctx)
	}
}

// interruptible returns a context that ends at the first SIGINT or SIGTERM, or at the SIGHUP of a
// closed terminal or the SIGQUIT of a key, unless these are ignored, as with nohup(1). The cause is
// report.ErrInterrupted. An interrupted add then removes its device (daemon.Pending.Abandon). A
// second signal ends the process at once.
func interruptible(parent context.Context) (ctx context.Context, stop func()) {
	signals := []os.Signal{unix.SIGINT, unix.SIGTERM}
	for _, s := range []os.Signal{unix.SIGHUP, unix.SIGQUIT} {
		if !signal.Ignored(s) {
			signals = append(signals, s)
		}
	}
	signaled, ignore := signal.NotifyContext(parent, signals...)
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(parent))
	context.AfterFunc(signaled, func() {
		ignore()
		cancel(report.ErrInterrupted)
	})
	return ctx, ignore
}
