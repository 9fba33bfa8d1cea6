package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/internal/report"
)

// upgradeTimeout bounds how long a new server may take to answer.
const upgradeTimeout = time.Minute

func newUpgradeCommand(a *app) *cobra.Command {
	var socket string
	cmd := &cobra.Command{
		Use:   "upgrade",
		Short: "Have the program of serve, as it is now, take the running one's place",
		Long: "Have the program of serve, as it is now, take the running one's place: in the same\n" +
			"process, with the same devices, whose I/O waits for that.",
		Args: arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.runUpgrade(cmd.Context(), socket) },
	}
	cmd.Flags().StringVar(&socket, "socket", client.DefaultSocket, "the server's socket is at `PATH`")
	return cmd
}

// runUpgrade asks a server to make place, and waits for the next.
func (a *app) runUpgrade(ctx context.Context, socket string) error {
	ctx, cancel := context.WithTimeout(ctx, upgradeTimeout)
	defer cancel()
	c := client.New(socket)
	if err := c.Upgrade(ctx); err != nil {
		return report.Name(err, "upgrade", "the server")
	}
	now, err := c.Status(ctx)
	if err != nil {
		return fmt.Errorf("upgrade the server: ask the new one: %w", err)
	}
	_, err = fmt.Fprintf(a.out, "version %s, process %d, %d devices\n", now.Version, now.PID, now.Devices)
	return err
}
