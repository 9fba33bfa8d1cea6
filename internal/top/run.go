// Package top shows repeatedly what the devices of a server do.
package top

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/ublk-loop/ublk-loop/client"
)

// Options are the interval and the number of tables.
type Options struct {
	Interval time.Duration
	Count    int // number of tables, 0 for no limit
}

// Run prints a table for each interval. On a terminal each table replaces the last one;
// otherwise it follows below.
func Run(ctx context.Context, out io.Writer, opts Options, stats func(context.Context) (client.Stats, error)) error {
	before, err := takeSnapshot(ctx, stats)
	if err != nil {
		return err
	}
	ticker := time.NewTicker(opts.Interval)
	defer ticker.Stop()
	show := newScreen(out)
	for n := 0; opts.Count == 0 || n < opts.Count; n++ {
		<-ticker.C
		after, err := takeSnapshot(ctx, stats)
		if err != nil {
			return err
		}
		if err := show(table(&before, &after)); err != nil {
			return err
		}
		before = after
	}
	return nil
}

func takeSnapshot(ctx context.Context, stats func(context.Context) (client.Stats, error)) (snapshot, error) {
	reply, err := stats(ctx)
	if err != nil {
		return snapshot{}, fmt.Errorf("get the statistics of the devices: %w", err)
	}
	return snapshot{time.Now(), reply}, nil
}
