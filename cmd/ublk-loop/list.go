package main

import (
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/internal/report"
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
		Use:   "list [DEVICE|ID...]",
		Short: "List the devices of ublk-loop",
		Args:  arguments(0, -1, ""),
		RunE: func(cmd *cobra.Command, args []string) error {
			opts.devices = args
			opts.hasFile = cmd.Flags().Changed("associated")
			if opts.json && opts.dmTable {
				return report.Usage(errors.New("--json and --dm-table are mutually exclusive"), helpHint(cmd))
			}
			return a.runList(opts)
		},
	}
	cmd.Flags().StringVarP(&opts.associated, "associated", "j", "", "list only the devices of `FILE`")
	cmd.Flags().BoolVar(&opts.json, "json", false, "print JSON")
	cmd.Flags().BoolVar(&opts.dmTable, "dm-table", false, "print tables that make the same disks with dmsetup, without the keys")
	return cmd
}

func (a *app) runList(opts listOptions) error {
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
	if opts.json {
		return report.JSON(a.out, append([]client.Device{}, devices...)) // an empty list prints [], not null
	}
	return report.DeviceTable(a.out, devices)
}

// parseDevices returns the ids of the devices that the arguments name.
func parseDevices(args []string) ([]uint32, error) {
	var ids []uint32
	for _, arg := range args {
		id, ok := deviceID(arg)
		if !ok {
			return nil, report.Usage(fmt.Errorf("list %s: neither a ublk device nor a device number", arg),
				"list --associated FILE lists the devices of a file")
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
