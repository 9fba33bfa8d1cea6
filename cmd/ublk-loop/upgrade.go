package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/internal/report"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// upgradeTimeout bounds the time until the new server answers.
const upgradeTimeout = time.Minute

func newUpgradeCommand(a *app) *cobra.Command {
	var socket string
	cmd := &cobra.Command{
		Use:   "upgrade",
		Short: "Replace the running server with the installed binary; devices stay",
		Long: "Replace the running server with the binary that is installed now. The process and its " +
			"devices stay; I/O waits for the new binary. It fails, and names the devices, if the new " +
			"binary cannot serve some of them.",
		Args: arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.runUpgrade(cmd.Context(), socket) },
	}
	socket = client.DefaultSocket
	filledVar(cmd.Flags(), &socket, "socket", "`PATH` of the server's socket")
	return cmd
}

// runUpgrade asks the server to execute the installed program, and waits until the new
// server answers. It fails if the new server does not serve each device of the old one.
func (a *app) runUpgrade(ctx context.Context, socket string) error {
	ctx, cancel := context.WithTimeout(ctx, upgradeTimeout)
	defer cancel()
	c := client.New(socket)
	before, err := c.Devices(ctx)
	if err != nil {
		return report.Name(a.noServer(err), "upgrade", "the server")
	}
	if err := c.Upgrade(ctx); err != nil {
		return report.Name(err, "upgrade", "the server")
	}
	now, err := c.Status(ctx)
	if err != nil {
		return fmt.Errorf("upgrade the server: ask the new one: %w", err)
	}
	if _, err := fmt.Fprintf(a.out, "version %s, process %d, %s\n", now.Version, now.PID, report.Count(now.Devices, "device")); err != nil {
		return err
	}
	lost, err := a.lostDevices(before, now.Unrecovered)
	if err != nil {
		return fmt.Errorf("upgrade the server: look for lost devices: %w", err)
	}
	for _, device := range lost {
		a.report(lostError(device, now.Unrecovered))
	}
	if len(lost) > 0 {
		return report.ErrReported
	}
	return nil
}

// lostDevices returns those devices that exist and have no server. A device that has been
// removed meanwhile is not lost.
func (a *app) lostDevices(before []client.Device, unrecovered []client.Unrecovered) ([]client.Device, error) {
	drv, err := a.open()
	if err != nil {
		return nil, err
	}
	defer func() { _ = drv.Close() }()
	now, err := drv.List()
	if err != nil {
		return nil, err
	}
	isLost := func(was client.Device) bool {
		i := slices.IndexFunc(now, func(d client.Device) bool { return d.ID == was.ID })
		if i < 0 || now[i].State == ublk.StateLive.String() && !slices.ContainsFunc(unrecovered, func(u client.Unrecovered) bool { return u.ID == was.ID }) {
			return false
		}
		// The disk is gone, or it is the same one.
		return now[i].DiskSequence == 0 || now[i].DiskSequence == was.DiskSequence
	}
	return slices.DeleteFunc(before, func(was client.Device) bool { return !isLost(was) }), nil
}

// lostError says why a device is lost, as far as the new server knows.
func lostError(device client.Device, unrecovered []client.Unrecovered) error {
	cause := errors.New("it has no server")
	for _, u := range unrecovered {
		if u.ID == device.ID {
			cause = errors.New(u.Error)
		}
	}
	return &hint.Error{
		Err:  report.Name(cause, "recover", device.Device),
		Hint: fmt.Sprintf("its I/O waits; once the cause is gone, the server or ublk-loop recover %d takes it over; ublk-loop del %d removes it", device.ID, device.ID),
	}
}
