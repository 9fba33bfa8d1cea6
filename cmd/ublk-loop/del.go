package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/ublk-loop/ublk-loop/internal/report"
	"github.com/ublk-loop/ublk-loop/loop"
	"github.com/ublk-loop/ublk-loop/ublk"
)

type delOptions struct {
	targets []string
	all     bool
	force   bool
	warn    func(object, warning string)
}

// warnOfFormer warns of a device that del leaves alone although list shows the path with it.
func (o *delOptions) warnOfFormer(drv driver, path string) {
	if former := formerDevice(drv, path); former != "" {
		o.warn(path, former+" has another file or disk, which had this path before, and stays")
	}
}

func newDelCommand(a *app) *cobra.Command {
	var opts delOptions
	cmd := &cobra.Command{
		Use:        "del DEVICE|ID|FILE...",
		SuggestFor: []string{"delete", "remove", "rm", "detach"},
		Short:      "Remove devices by path, number or attached file",
		RunE: func(cmd *cobra.Command, args []string) error {
			opts.targets = args
			if opts.all == (len(args) > 0) {
				return report.Usage(errors.New("del: give either devices or --all"), helpHint(cmd))
			}
			return finish(cmd.Context(), func(ctx context.Context) error { return a.runDel(ctx, opts) })
		},
	}
	cmd.Flags().BoolVar(&opts.all, "all", false, "remove all devices of ublk-loop")
	cmd.Flags().BoolVar(&opts.force, "force", false, "also remove a device in use: its users get errors")
	return cmd
}

func (a *app) runDel(ctx context.Context, opts delOptions) error {
	opts.warn = func(object, warning string) { report.Warnings(a.errOut, object, []string{warning}) }
	drv, err := a.openDevices()
	if err != nil {
		return err
	}
	defer func() { _ = drv.Close() }()
	failed := false
	try := func(err error) {
		if err != nil {
			a.report(err)
			failed = true
		}
	}
	for _, err := range opts.removeAll(ctx, drv, opts.find(drv, try)) {
		try(err)
	}
	if failed {
		return report.ErrReported
	}
	return nil
}

// removeAll removes devices, and returns the errors of those that it cannot remove. A device can be
// in use by another one of them, so that it is tried again after the others. An interrupt keeps the
// devices that are left.
func (o *delOptions) removeAll(ctx context.Context, drv driver, targets []target) (errs []error) {
	for len(targets) > 0 {
		var used []target
		var inUse []error
		for _, t := range targets {
			if ctx.Err() != nil {
				return append(errs, context.Cause(ctx))
			}
			err := report.Name(o.remove(drv, t), "remove", ublk.BlockPath(t.id))
			switch {
			case errors.Is(err, loop.ErrInUse):
				used, inUse = append(used, t), append(inUse, err)
			case err != nil:
				errs = append(errs, err)
			}
		}
		if len(used) == len(targets) {
			return append(errs, inUse...)
		}
		targets = used
	}
	return errs
}

func (o *delOptions) remove(drv driver, t target) error {
	if o.force {
		if err := refuseRoot(drv, t.id); err != nil {
			return err
		}
	}
	return drv.Detach(t.id, loop.DetachOptions{Force: o.force, DiskSequence: t.sequence, Tag: t.tag})
}

// find returns the devices to remove. It passes the error of each argument that it cannot
// find to try.
func (o *delOptions) find(drv driver, try func(error)) []target {
	var targets []target
	for _, arg := range o.targets {
		if id, ok := deviceID(arg); ok {
			targets = append(targets, target{id: id})
			continue
		}
		found, err := findFile(drv, arg)
		if err == nil && len(found) == 0 {
			if err = refusePartition(arg); err == nil {
				o.warnOfFormer(drv, arg)
			}
		}
		try(err)
		targets = append(targets, foundTargets(found)...)
	}
	if o.all {
		devices, err := drv.List()
		try(err)
		targets = append(targets, foundTargets(devices)...)
	}
	return targets
}
