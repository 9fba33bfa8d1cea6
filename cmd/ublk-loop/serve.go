package main

import (
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
		Long: "Serve many devices in this process, until SIGINT or SIGTERM: those that add asks\n" +
			"for while it runs, and those of programs that speak HTTP at its socket.",
		Args: arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts.HasLogFile = cmd.Flags().Changed("log-file")
			return a.serve(opts)
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&opts.Socket, "socket", client.DefaultSocket, "listen at `PATH`, unless the service manager has a socket for this")
	f.Var(onCrashFlag{&opts.OnCrash}, "on-crash", "what devices get that are added without (reissue where something starts the server\nagain: a service manager, or --supervise; else fail)")
	f.BoolVar(&opts.Supervise, "supervise", false, "serve in another process, and start it again when it was killed")
	f.StringVar(&opts.LogFile, "log-file", "", "append the log to `FILE`, as lines of JSON")
	f.StringVar(&opts.Metrics, "metrics", "", "have metrics for Prometheus at `HOST:PORT`, too, for everybody who can connect")
	return cmd
}
