package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/internal/daemon"
)

func newServeCommand(a *app) *cobra.Command {
	opts := daemon.ServeOptions{Getenv: os.Getenv}
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve many devices in this process, for add and for other programs",
		Long: "Serve many devices in this process, until SIGINT or SIGTERM. While it runs, add asks it\n" +
			"for devices. Other programs ask it over HTTP at its socket.",
		Args: arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts.HasLogFile = cmd.Flags().Changed("log-file")
			if err := a.load(); err != nil {
				return fmt.Errorf("serve: %w", err)
			}
			return a.serve(opts)
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	opts.Socket = client.DefaultSocket
	filledVar(f, &opts.Socket, "socket", "listen at `PATH`, unless the service manager passes a socket")
	f.Var(onCrashFlag{&opts.OnCrash}, "on-crash", "default --on-crash for added devices (reissue if a service manager or --supervise\nrestarts the server, else fail)")
	f.BoolVar(&opts.Supervise, "supervise", false, "serve in another process, and restart it after a crash")
	filledVar(f, &opts.LogFile, "log-file", "append the log to `FILE`, as JSON lines")
	filledVar(f, &opts.Metrics, "metrics", "also serve Prometheus metrics at `HOST:PORT`, to everyone who can connect")
	return cmd
}
