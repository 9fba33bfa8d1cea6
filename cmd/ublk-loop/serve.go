package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/internal/daemon"
	"github.com/ublk-loop/ublk-loop/ublk"
)

func newServeCommand(a *app) *cobra.Command {
	opts := daemon.ServeOptions{Getenv: os.Getenv}
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve many devices in this process, for add and for other programs",
		Long: "Serve many devices in this process, until SIGINT, SIGTERM or SIGHUP. While it runs, add asks it " +
			"for devices. Other programs ask it over HTTP at its socket.",
		Args: arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts.HasLogFile = cmd.Flags().Changed("log-file")
			if err := a.loadForServe(); err != nil {
				return fmt.Errorf("serve: %w", err)
			}
			return a.serve(opts)
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	opts.Socket = client.DefaultSocket
	filledVar(f, &opts.Socket, "socket", "listen at `PATH`, unless the service manager passes a socket")
	f.Var(onCrashFlag(&opts.OnCrash), "on-crash", "default --on-crash for added devices (reissue if a service manager or --supervise restarts the server, else fail)")
	f.BoolVar(&opts.Supervise, "supervise", false, "serve in another process, and restart it after a crash")
	filledVar(f, &opts.LogFile, "log-file", "append the log to `FILE`, as JSON lines")
	filledVar(f, &opts.Metrics, "metrics", "also serve Prometheus metrics at `HOST:PORT`, to everyone who can connect")
	return cmd
}

// driverPatience bounds the time for which serve waits for the driver, and driverPause is between two looks.
const (
	driverPatience = 5 * time.Second
	driverPause    = 100 * time.Millisecond
)

// loadForServe loads the driver. A service manager starts serve again at once when it ends, because devices may wait
// for it. Without the driver there are none, so that serve then waits for the driver before it ends.
func (a *app) loadForServe() error {
	err := a.load()
	if !errors.Is(err, ublk.ErrNoDriver) || os.Getenv("NOTIFY_SOCKET") == "" {
		return err
	}
	for over := time.After(driverPatience); ; {
		select {
		case <-over:
			return err
		case <-time.After(driverPause):
		}
		if a.hasDriver() {
			return nil
		}
	}
}

// hasDriver reports whether the driver has its control device. The unit may not allow this process a device that came
// after its start. It then fails, and the next one works.
func (a *app) hasDriver() bool {
	drv, err := a.open()
	if err == nil {
		_ = drv.Close()
	}
	return !errors.Is(err, ublk.ErrNoDriver) && !errors.Is(err, unix.ENOENT)
}
