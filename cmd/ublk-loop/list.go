package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/internal/report"
	"github.com/ublk-loop/ublk-loop/loop/cowfile"
	"github.com/ublk-loop/ublk-loop/ublk"
)

type listOptions struct {
	devices    []string
	associated string // the file of --associated
	hasFile    bool   // --associated is given
	json       bool
	dmTable    bool
	socket     string // of serve
}

func newListCommand(a *app) *cobra.Command {
	opts := listOptions{socket: client.DefaultSocket}
	cmd := &cobra.Command{
		Use:        "list [DEVICE|ID|FILE...]",
		SuggestFor: []string{"ls", "show", "status"},
		Short:      "List the devices of ublk-loop",
		Args:       arguments(0, -1, ""),
		RunE: func(cmd *cobra.Command, args []string) error {
			opts.devices = args
			opts.hasFile = cmd.Flags().Changed("associated")
			if opts.json && opts.dmTable {
				return report.Usage(errors.New("--json and --dm-table are mutually exclusive"), helpHint(cmd))
			}
			return a.runList(cmd.Context(), opts)
		},
	}
	cmd.Flags().StringVarP(&opts.associated, "associated", "j", "", "list only the devices of `FILE`")
	cmd.Flags().BoolVar(&opts.json, "json", false, "print JSON")
	cmd.Flags().BoolVar(&opts.dmTable, "dm-table", false, "print tables that make the same disks with dmsetup, without the keys")
	filledVar(cmd.Flags(), &opts.socket, "socket", "`PATH` of the socket of serve, which knows the use of stores")
	return cmd
}

func (a *app) runList(ctx context.Context, opts listOptions) error {
	drv, err := a.openDevices()
	if err != nil {
		return err
	}
	defer func() { _ = drv.Close() }()
	devices, err := drv.List()
	if err != nil {
		return err
	}
	if len(opts.devices) > 0 {
		targets, err := opts.wanted(drv)
		if err != nil {
			return err
		}
		if devices, err = selectDevices(devices, targets); err != nil {
			return err
		}
	}
	if opts.hasFile {
		if devices, err = associated(drv, devices, opts.associated); err != nil {
			return err
		}
	}
	if opts.dmTable {
		return report.DMTables(a.out, devices)
	}
	a.addStores(ctx, opts.socket, devices)
	for i := range devices {
		report.Warnings(a.errOut, devices[i].Device, report.FullStores(&devices[i]))
	}
	if opts.json {
		return report.JSON(a.out, append([]client.Device{}, devices...)) // an empty list prints [], not null
	}
	return report.DeviceTable(a.out, devices)
}

// statsPatience is how long list waits for the use of stores. A server with a hung disk may not
// answer.
const statsPatience = 2 * time.Second

// addStores asks the servers of snapshots for the use of their stores. The use of a server that
// does not answer stays unknown.
func (a *app) addStores(ctx context.Context, socket string, devices []client.Device) {
	ctx, cancel := context.WithTimeout(ctx, statsPatience)
	defer cancel()
	var others map[uint32][]client.StoreStats // of the devices of serve; nil before it is asked
	for i := range devices {
		d := &devices[i]
		if d.PID == 0 || !cowfile.HasStore(d.Table) {
			continue
		}
		if stores, isOther := others[d.ID]; isOther {
			d.Stores = stores
			continue
		}
		own, err := a.stores(ctx, client.DeviceSocket(d.ID))
		if err != nil && others == nil {
			others, _ = a.stores(ctx, socket)
		}
		if d.Stores = own[d.ID]; err != nil {
			d.Stores = others[d.ID]
		}
	}
}

// stores returns the use of the stores of a server's devices. The map is not nil.
func (a *app) stores(ctx context.Context, socket string) (map[uint32][]client.StoreStats, error) {
	stats, err := a.stats(ctx, socket)
	stores := make(map[uint32][]client.StoreStats)
	for i := range stats.Devices {
		stores[stats.Devices[i].ID] = stats.Devices[i].Stores
	}
	return stores, err
}

// wanted returns the devices that the arguments name.
func (o *listOptions) wanted(drv driver) ([]target, error) {
	var targets []target
	for _, arg := range o.devices {
		found, err := targetsOf(drv, arg)
		if err != nil {
			return nil, report.Name(err, "list", arg)
		}
		targets = append(targets, found...)
	}
	return targets, nil
}

// selectDevices returns the devices that targets name. It returns an error if one of them does not
// exist.
func selectDevices(devices []client.Device, targets []target) ([]client.Device, error) {
	selected := slices.DeleteFunc(slices.Clone(devices), func(d client.Device) bool {
		return !slices.ContainsFunc(targets, func(t target) bool { return t.is(&d) })
	})
	for _, t := range targets {
		if !slices.ContainsFunc(selected, func(d client.Device) bool { return t.is(&d) }) {
			return nil, fmt.Errorf("list %s: no such device of ublk-loop", ublk.BlockPath(t.id))
		}
	}
	return selected, nil
}

// associated returns the devices of the file at path.
func associated(drv driver, devices []client.Device, path string) ([]client.Device, error) {
	found, err := findFile(drv, path)
	if err != nil {
		return nil, err
	}
	targets := foundTargets(found)
	isFound := func(d client.Device) bool {
		return slices.ContainsFunc(targets, func(t target) bool { return t.is(&d) })
	}
	return slices.DeleteFunc(slices.Clone(devices), func(d client.Device) bool { return !isFound(d) }), nil
}
