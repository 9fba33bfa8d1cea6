// Package top shows again and again what the devices of a server do.
package top

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/ublk-loop/ublk-loop/client"
)

// Options say how often, and how many times.
type Options struct {
	Interval time.Duration
	Count    int // of tables, 0 for no end
}

// Run prints a table of each interval: on a terminal in place of the last
// one, elsewhere below it.
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
		return snapshot{}, fmt.Errorf("ask what devices do: %w", err)
	}
	return snapshot{time.Now(), reply}, nil
}
