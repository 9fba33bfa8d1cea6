package main

import (
	"context"
	"os"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/internal/daemon"
	"github.com/ublk-loop/ublk-loop/internal/mounthelper"
)

// mountMain is the helper of mount(8).
func (a *app) mountMain(args []string) int {
	ctx, stop := interruptible(context.Background())
	defer stop()
	h := mounthelper.Helper{Client: client.New(client.DefaultSocket), Find: a.find, NoServer: daemon.HintStartServe, Err: a.errOut}
	return h.Run(ctx, args)
}

// find returns the devices of a file. Without the driver there are none.
func (a *app) find(file *os.File) ([]client.Device, error) {
	drv, err := a.openDevices()
	if err != nil {
		return nil, err
	}
	defer func() { _ = drv.Close() }()
	return drv.Find(file)
}
