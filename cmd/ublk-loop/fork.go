package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/internal/report"
	"github.com/ublk-loop/ublk-loop/loop/cowfile"
	"github.com/ublk-loop/ublk-loop/ublk"
)

func newForkCommand(a *app) *cobra.Command {
	socket := client.DefaultSocket
	cmd := &cobra.Command{
		Use:   "fork DEVICE|ID STORE [OTHER]",
		Short: "Make a device go on over a new store, and another start from the same point",
		Long: "Make a device of serve go on over the new file STORE, and freeze its old store. With the new\n" +
			"file OTHER, a second device starts from the same point. The paths of the devices are printed.",
		Args: arguments(2, 3, "DEVICE and STORE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, ok := deviceID(args[0])
			if !ok {
				return report.Usage(fmt.Errorf("fork: %s: not a device", args[0]), helpHint(cmd))
			}
			return report.Name(a.runFork(cmd.Context(), client.New(socket), id, args[1:]), "fork", ublk.BlockPath(id))
		},
	}
	cmd.Flags().StringVar(&socket, "socket", socket, "`PATH` of the server's socket")
	return cmd
}

// runFork makes the stores, lets the server fork the device, and prints the devices.
func (a *app) runFork(ctx context.Context, server *client.Client, id uint32, stores []string) error {
	device, err := server.Device(ctx, id)
	if err != nil {
		return err
	}
	var made []string
	for _, store := range stores {
		path, err := filepath.Abs(store)
		if err == nil {
			err = cowfile.CreateAbove(path, device.Table)
		}
		if err != nil {
			return errors.Join(err, removeAll(made))
		}
		made = append(made, path)
	}
	other := ""
	if len(made) > 1 {
		other = made[1]
	}
	devices, err := server.Fork(ctx, &device, made[0], other)
	if err != nil {
		// The server may have forked the device and failed later, so the stores stay.
		return err
	}
	for _, d := range devices {
		fmt.Fprintln(a.out, d.Device)
	}
	return nil
}

// removeAll removes files.
func removeAll(paths []string) error {
	var errs []error
	for _, path := range paths {
		errs = append(errs, os.Remove(path))
	}
	return errors.Join(errs...)
}
