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
}

func newListCommand(a *app) *cobra.Command {
	var opts listOptions
	cmd := &cobra.Command{
		Use:        "list [DEVICE|ID...]",
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
	return cmd
}

func (a *app) runList(ctx context.Context, opts listOptions) error {
	wanted, err := parseDevices(opts.devices)
	if err != nil {
		return err
	}
	drv, err := a.open()
	if err != nil {
		return err
	}
	defer func() { _ = drv.Close() }()
	devices, err := drv.List()
	if err != nil {
		return err
	}
	if len(wanted) > 0 {
		if devices, err = selectDevices(devices, wanted); err != nil {
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
	a.addStores(ctx, devices)
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
// does not answer stays unknown, and so does that of serve at another socket.
func (a *app) addStores(ctx context.Context, devices []client.Device) {
	ctx, cancel := context.WithTimeout(ctx, statsPatience)
	defer cancel()
	var others map[uint32][]client.StoreStats // of the devices of serve; nil before it is asked
	for i := range devices {
		d := &devices[i]
		if d.PID == 0 || !cowfile.HasStore(d.Table) {
			continue
		}
		own, err := a.stores(ctx, client.DeviceSocket(d.ID))
		if err != nil && others == nil {
			others, _ = a.stores(ctx, client.DefaultSocket)
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

// parseDevices returns the ids of the devices that the arguments name.
func parseDevices(args []string) ([]uint32, error) {
	var ids []uint32
	for _, arg := range args {
		id, ok := deviceID(arg)
		if !ok {
			advice := "list --associated FILE lists the devices of a file"
			if id, ok := idOfName(arg); ok { // as lsblk(8) prints it
				advice = "the device is " + ublk.BlockPath(id)
			}
			return nil, report.Usage(fmt.Errorf("list %s: neither a ublk device nor a device number", arg), advice)
		}
		ids = append(ids, id)
	}
	return ids, nil
}

// selectDevices returns the devices with these ids. It returns an error if an id has no
// device.
func selectDevices(devices []client.Device, ids []uint32) ([]client.Device, error) {
	selected := slices.DeleteFunc(slices.Clone(devices), func(d client.Device) bool { return !slices.Contains(ids, d.ID) })
	for _, id := range ids {
		if !slices.ContainsFunc(selected, func(d client.Device) bool { return d.ID == id }) {
			return nil, fmt.Errorf("list %s: no such device of ublk-loop", ublk.BlockPath(id))
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
	isFound := func(d client.Device) bool {
		return slices.ContainsFunc(found, func(f client.Device) bool { return f.ID == d.ID && f.DiskSequence == d.DiskSequence })
	}
	return slices.DeleteFunc(slices.Clone(devices), func(d client.Device) bool { return !isFound(d) }), nil
}
