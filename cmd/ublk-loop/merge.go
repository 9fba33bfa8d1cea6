package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/internal/report"
)

func newMergeCommand(a *app) *cobra.Command {
	socket := client.DefaultSocket
	cmd := &cobra.Command{
		Use:   "merge DEVICE|ID|FILE",
		Short: "Write the changes of a device's store to its base, while the device is used",
		Long: "Write the changes of a device's store to its base, while the device is used. The device goes on " +
			"with the store, which is empty then. If the command is interrupted, the next one continues.",
		Args: arguments(1, 1, "DEVICE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := interruptible(cmd.Context())
			defer stop()
			return report.Name(a.runMerge(ctx, socket, args[0]), "merge", args[0])
		},
	}
	filledVar(cmd.Flags(), &socket, "socket", "`PATH` of the socket of serve")
	return cmd
}

func (a *app) runMerge(ctx context.Context, socket, target string) error {
	drv, err := a.open()
	if err != nil {
		return err
	}
	defer func() { _ = drv.Close() }()
	device, err := oneDevice(drv, target)
	if err != nil {
		return err
	}
	merged, err := mergeDevice(ctx, socket, &device)
	if err != nil {
		return err
	}
	fmt.Fprintf(a.out, "%s merged\n", report.Count(merged.Chunks, "chunk"))
	return nil
}

// mergeDevice asks the process of the device, or else the server of many devices.
func mergeDevice(ctx context.Context, socket string, device *client.Device) (client.Merged, error) {
	merged, err := client.New(client.DeviceSocket(device.ID)).Merge(ctx, device)
	if errors.Is(err, client.ErrNoServer) {
		merged, err = client.New(socket).Merge(ctx, device)
	}
	if errors.Is(err, client.ErrNoServer) {
		err = fmt.Errorf("the server of %s does not merge; it has no store: %w", device.Device, unix.EINVAL)
		err = hint.Add(err, "only a device with a store has changes: ublk-loop add --cow")
	}
	return merged, err
}
