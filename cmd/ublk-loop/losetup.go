package main

import (
	"context"
	"errors"
	"fmt"
	"os/signal"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/internal/daemon"
	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/internal/losetup"
	"github.com/ublk-loop/ublk-loop/internal/report"
	"github.com/ublk-loop/ublk-loop/loop"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// losetupNames are the names by which this program is losetup. It is not installed under
// the second, because kubelet, udev and libmount expect devices called loop* of that.
var losetupNames = []string{"ublk-losetup", "losetup"}

func newLosetupCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "losetup ARGUMENTS...",
		Short: "Do what losetup(8) does, with these devices",
		Long: "Do what losetup(8) of util-linux does, with these devices. Called as ublk-losetup, this " +
			"program does the same.",
		DisableFlagParsing: true,
		RunE: func(_ *cobra.Command, args []string) error {
			if a.losetup("losetup", args) != report.ExitDone {
				return report.ErrReported
			}
			return nil
		},
	}
}

// losetup carries out a command line of losetup, and returns the exit status.
func (a *app) losetup(name string, args []string) int {
	ctx, stop := interruptible(context.Background())
	defer stop()
	c := losetup.Command{Name: filepath.Base(name), Version: moduleVersion(), Out: a.out, Err: a.errOut, System: &loops{a}}
	return c.Run(ctx, args)
}

// loops are the devices of losetup.
type loops struct{ app *app }

var _ losetup.System = (*loops)(nil)

// List implements losetup.System.
func (l *loops) List() ([]client.Device, error) {
	drv, err := l.app.openDevices()
	if err != nil {
		return nil, err
	}
	defer func() { _ = drv.Close() }()
	return drv.List()
}

// NextID implements losetup.System.
func (l *loops) NextID() (id uint32, err error) {
	if err := l.app.load(); err != nil {
		return 0, err
	}
	drv, err := l.app.open()
	if err != nil {
		return 0, err
	}
	defer func() { _ = drv.Close() }()
	ids, err := drv.IDs()
	for slices.Contains(ids, id) {
		id++
	}
	return id, err
}

// Attach implements losetup.System.
func (l *loops) Attach(ctx context.Context, path string, cfg loop.Config) (*client.Device, error) {
	file, err := loop.OpenPath(path)
	if err != nil {
		return nil, err
	}
	j := &daemon.Job{Name: file.Name(), File: file, Config: cfg}
	defer j.Close()
	if err := l.app.load(); err != nil {
		return nil, err
	}
	signal.Ignore(unix.SIGPIPE)
	return l.app.addDevice(ctx, j, showLater)
}

// Detach implements losetup.System.
func (l *loops) Detach(ctx context.Context, d *client.Device) error {
	return finishSoon(ctx, func(ctx context.Context) error { return l.detach(ctx, d) })
}

func (l *loops) detach(ctx context.Context, d *client.Device) error {
	drv, err := l.app.open()
	if err != nil {
		return err
	}
	defer func() { _ = drv.Close() }()
	err = drv.Detach(d.ID, loop.DetachOptions{DiskSequence: &d.DiskSequence, Tag: d.Tag})
	if !errors.Is(err, loop.ErrInUse) {
		return err
	}
	if clearErr := l.app.server.Clear(ctx, d); clearErr != nil {
		return hint.Add(fmt.Errorf("%w: %w", err, unix.EBUSY), "unmount it first; only ublk-loop serve removes devices when their last user has gone")
	}
	return nil
}

// Keep implements losetup.System.
func (l *loops) Keep(ctx context.Context, d *client.Device) error { return l.app.server.Keep(ctx, d) }

// Resize implements losetup.System.
func (l *loops) Resize(ctx context.Context, d *client.Device) error {
	return finishSoon(ctx, func(context.Context) error { return l.resize(d) })
}

func (l *loops) resize(d *client.Device) error {
	drv, err := l.app.open()
	if err != nil {
		return err
	}
	defer func() { _ = drv.Close() }()
	err = drv.Resize(d.ID, loop.ResizeOptions{DiskSequence: &d.DiskSequence, Tag: d.Tag})
	if errors.Is(err, ublk.ErrNotSupported) {
		err = fmt.Errorf("%w: %w", err, unix.EOPNOTSUPP)
	}
	return err
}

// Hint implements losetup.System.
func (l *loops) Hint(err error) string { return report.Hint(err) }
