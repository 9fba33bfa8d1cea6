package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/internal/report"
	"github.com/ublk-loop/ublk-loop/internal/top"
)

type topOptions struct {
	socket   string
	interval time.Duration
	count    int // number of tables, 0 for no limit
}

// minInterval limits the load that top itself causes.
const minInterval = 100 * time.Millisecond

func newTopCommand(a *app) *cobra.Command {
	var opts topOptions
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Show repeatedly what the devices of serve do",
		Long: "Show repeatedly what the devices of serve do: requests and bytes per second, how long " +
			"requests take, how many are in flight and how many have failed.",
		Args: arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if opts.interval < minInterval {
				return report.Usage(fmt.Errorf("--interval %s: less than %s", opts.interval, minInterval), helpHint(cmd))
			}
			return top.Run(cmd.Context(), a.screen(), top.Options{Interval: opts.interval, Count: opts.count}, client.New(opts.socket).Stats)
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	opts.interval = time.Second
	f.VarP(durationFlag{&opts.interval}, "interval", "d", "average over this time: 500ms, 10s or 1m, for example")
	f.VarP(countFlag(&opts.count, 1<<30), "count", "n", "end after this number of tables")
	opts.socket = client.DefaultSocket
	filledVar(f, &opts.socket, "socket", "`PATH` of the server's socket")
	return cmd
}
