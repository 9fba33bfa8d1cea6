package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/ublk-loop/ublk-loop/cmd/ublk-loop/control"
	"github.com/ublk-loop/ublk-loop/internal/report"
)

type topOptions struct {
	socket   string
	interval time.Duration
	count    int // of tables, 0 for no end
}

// minInterval keeps top from being a load of its own.
const minInterval = 100 * time.Millisecond

func newTopCommand(a *app) *cobra.Command {
	var opts topOptions
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Show what the devices of serve do, again and again",
		Long: "Show what the devices of serve do, again and again: requests and bytes a second,\n" +
			"how long requests take, how many are in flight and how many have failed.",
		Args: arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if opts.interval < minInterval {
				return report.Usage(fmt.Errorf("--interval %s: less than %s", opts.interval, minInterval), helpHint(cmd))
			}
			return a.runTop(cmd.Context(), opts, control.NewClient(opts.socket).Stats)
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.DurationVarP(&opts.interval, "interval", "d", time.Second, "show the mean of so long a `TIME` (500ms, 1s, 1m)")
	f.VarP(countFlag{&opts.count, 1 << 30}, "count", "n", "end after so many tables")
	f.StringVar(&opts.socket, "socket", control.DefaultSocket, "the server's socket is at `PATH`")
	return cmd
}

// runTop prints a table of each interval: on a terminal in place of the last
// one, elsewhere below it.
func (a *app) runTop(ctx context.Context, opts topOptions, stats func(context.Context) (control.StatsReply, error)) error {
	before, err := takeSnapshot(ctx, stats)
	if err != nil {
		return err
	}
	ticker := time.NewTicker(opts.interval)
	defer ticker.Stop()
	show := a.newScreen()
	for n := 0; opts.count == 0 || n < opts.count; n++ {
		<-ticker.C
		after, err := takeSnapshot(ctx, stats)
		if err != nil {
			return err
		}
		if err := show(topTable(&before, &after)); err != nil {
			return err
		}
		before = after
	}
	return nil
}

func takeSnapshot(ctx context.Context, stats func(context.Context) (control.StatsReply, error)) (snapshot, error) {
	reply, err := stats(ctx)
	if err != nil {
		return snapshot{}, fmt.Errorf("ask what devices do: %w", serverError(err))
	}
	return snapshot{time.Now(), reply}, nil
}
