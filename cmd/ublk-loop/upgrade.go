package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/internal/report"
)

// upgradeTimeout bounds the time until the new server answers.
const upgradeTimeout = time.Minute

func newUpgradeCommand(a *app) *cobra.Command {
	var socket string
	cmd := &cobra.Command{
		Use:   "upgrade",
		Short: "Replace the running server with the installed binary; devices stay",
		Long: "Replace the running server with the binary that is installed now. The process and its\n" +
			"devices stay; I/O waits for the new binary.",
		Args: arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.runUpgrade(cmd.Context(), socket) },
	}
	cmd.Flags().StringVar(&socket, "socket", client.DefaultSocket, "path of the server's socket, `PATH`")
	return cmd
}

// runUpgrade asks the server to execute the installed program, and waits until the new
// server answers.
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
