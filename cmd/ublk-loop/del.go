package main

import (
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
			return a.runDel(opts)
		},
	}
	cmd.Flags().BoolVar(&opts.all, "all", false, "remove all devices of ublk-loop")
	cmd.Flags().BoolVar(&opts.force, "force", false, "also remove a device in use: its users get errors")
	return cmd
}

func (a *app) runDel(opts delOptions) error {
	drv, err := a.open()
	if errors.Is(err, ublk.ErrNoDriver) && !opts.all && allDevices(opts.targets) {
		return nil // without a driver no device exists
	}
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
	for _, t := range opts.find(drv, try) {
		try(report.Name(opts.remove(drv, t), "remove", ublk.BlockPath(t.id)))
	}
	if failed {
		return report.ErrReported
	}
	return nil
}

func (o *delOptions) remove(drv driver, t target) error {
	if o.force {
		if err := refuseRoot(drv, t.id); err != nil {
			return err
		}
	}
	return drv.Detach(t.id, loop.DetachOptions{Force: o.force, DiskSequence: t.sequence})
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
