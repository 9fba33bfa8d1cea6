package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/ublk-loop/ublk-loop/internal/bytesize"
	"github.com/ublk-loop/ublk-loop/internal/report"
	"github.com/ublk-loop/ublk-loop/loop"
	"github.com/ublk-loop/ublk-loop/ublk"
)

type resizeOptions struct {
	target string
	size   uint64 // 0: the size of the file
}

func newResizeCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "resize DEVICE|ID|FILE [SIZE]",
		Short: "Resize a device, by default to the size of its file",
		Args:  arguments(1, 2, "DEVICE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			opts := resizeOptions{target: args[0]}
			if len(args) > 1 {
				var err error
				if opts.size, err = parseNewSize(args[1]); err != nil {
					return report.Usage(err, helpHint(cmd))
				}
			}
			return finish(cmd.Context(), func(ctx context.Context) error { return a.runResize(ctx, opts) })
		},
	}
}

// parseNewSize parses the new size of a device.
func parseNewSize(text string) (uint64, error) {
	size, err := bytesize.Parse(text)
	if err == nil && size == 0 {
		err = fmt.Errorf("a device has at least one sector")
	}
	if err != nil {
		return 0, fmt.Errorf("resize: size %q: %w", text, err)
	}
	return size, nil
}

// runResize resizes one device, or each device of a file.
func (a *app) runResize(ctx context.Context, opts resizeOptions) error {
	drv, err := a.open()
	if err != nil {
		return err
	}
	defer func() { _ = drv.Close() }()
	targets, err := targetsOf(drv, opts.target)
	if err != nil {
		return report.Name(err, "resize", opts.target)
	}
	failed := false
	for _, t := range targets {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		err := drv.Resize(t.id, loop.ResizeOptions{Size: opts.size, DiskSequence: t.sequence, Tag: t.tag})
		if err := report.Name(err, "resize", ublk.BlockPath(t.id)); err != nil {
			a.report(err)
			failed = true
		}
	}
	if failed {
		return report.ErrReported
	}
	return nil
}
