package main

import (
	"bytes"
	"fmt"
	"io"
	"log/syslog"
	"os"
	"os/signal"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/oci"
	"github.com/ublk-loop/ublk-loop/internal/rawname"
	"github.com/ublk-loop/ublk-loop/internal/report"
)

func newHookCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "hook precreate|poststart NAME|poststop NAME|sweep",
		Short: "Supply a container's root from an image, as a hook of podman",
		Long: "Supply a container's root from an image, as a hook of podman.\n" +
			"precreate is for the engine's configuration, and names poststart and poststop to the runtime.\n" +
			"sweep unmounts what precreate has mounted for containers that failed to start.",
		Args: func(cmd *cobra.Command, args []string) error {
			return report.Usage(fmt.Errorf("%s: not one of precreate, poststart, poststop, sweep", cmd.Name()), helpHint(cmd))
		},
		RunE: func(*cobra.Command, []string) error { return nil },
	}
	cmd.AddCommand(
		&cobra.Command{
			Use: "precreate", Short: "Mount the image, and set it as the root in the configuration from standard input",
			Args: arguments(0, 0, ""),
			RunE: a.hook(func(_ []string, in io.Reader) error { return a.precreate(in) }),
		},
		&cobra.Command{
			Use: "poststart NAME", Short: "Unmount what precreate has mounted: the container has its own mount",
			Args: arguments(1, 1, "NAME"),
			RunE: func(cmd *cobra.Command, args []string) error {
				// A failure must not stop the running container. sweep removes the mount
				// later.
				_ = a.hook(func(args []string, in io.Reader) error { return oci.Poststart(args[0], in) })(cmd, args)
				return nil
			},
		},
		&cobra.Command{
			Use: "poststop NAME", Short: "Unmount what precreate has mounted, if it is still mounted",
			Args: arguments(1, 1, "NAME"),
			RunE: a.hook(func(args []string, _ io.Reader) error { return oci.Poststop(args[0]) }),
		},
		&cobra.Command{
			Use: "unmount NAME", Short: "Unmount what precreate has mounted, for another hook", Hidden: true,
			Args: arguments(1, 1, "NAME"),
			RunE: func(_ *cobra.Command, args []string) error { return oci.Unmount(args[0]) },
		},
		newSweepCommand(),
	)
	return cmd
}

func newSweepCommand() *cobra.Command {
	var age time.Duration
	cmd := &cobra.Command{
		Use: "sweep", Short: "Unmount what precreate has mounted for containers that failed to start",
		Args: arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !cmd.Flags().Changed("older-than") {
				settings, err := oci.ReadSettings(oci.SettingsPath)
				if err != nil {
					return err
				}
				age = settings.SweepAfter
			}
			return oci.Sweep(age)
		},
	}
	cmd.Flags().Var(durationFlag{&age}, "older-than", "sweep mounts older than TIME (default: sweep_after of "+oci.SettingsPath+")")
	return cmd
}

// hook returns the main function of a hook. It reads the whole input first, also if the
// hook does not need it: if a hook ends before that, the signal SIGPIPE kills crun.
func (a *app) hook(run func(args []string, in io.Reader) error) func(*cobra.Command, []string) error {
	return func(_ *cobra.Command, args []string) error {
		text, err := oci.ReadHookInput(a.in)
		if err == nil {
			err = run(args, bytes.NewReader(text))
		}
		return a.reportHook(err)
	}
}

// precreate carries out the hook precreate. If the engine has ended and cannot read the
// answer, precreate fails, so that no mount stays.
func (a *app) precreate(in io.Reader) error {
	signal.Ignore(unix.SIGPIPE)
	settings, err := oci.ReadSettings(oci.SettingsPath)
	if err != nil {
		return oci.Reword(err)
	}
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	h := &oci.Hooks{Maker: rootMaker(settings, oci.HandlerHook), Program: program}
	return h.Precreate(in, a.out)
}

// reportHook prints an error on one line, and also writes it to the system log, if there
// is one. podman discards the output of its hooks.
func (a *app) reportHook(err error) error {
	if err == nil {
		return nil
	}
	report.Print(a.errOut, rawname.Error(err), "")
	if log, logErr := syslog.New(syslog.LOG_DAEMON|syslog.LOG_ERR, "ublk-loop"); logErr == nil {
		_ = log.Err(report.OneLine(rawname.Error(err)))
		_ = log.Close()
	}
	return report.ErrReported
}
