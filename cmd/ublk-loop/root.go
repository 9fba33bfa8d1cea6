package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/internal/process"
	"github.com/ublk-loop/ublk-loop/internal/report"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// This file is about devices that hold the root file system. Their servers come from the
// initramfs.

// checkRoot refuses --root-storage outside of an initramfs: a server whose program is on a disk
// would keep that disk from being unmounted.
func (o *addOptions) checkRoot(cmd *cobra.Command) error {
	if !o.root {
		return nil
	}
	if o.foreground || o.autoclear > 0 {
		return report.Usage(errors.New("--root-storage: not with --foreground or --autoclear"), helpHint(cmd))
	}
	var fs unix.Statfs_t
	if err := unix.Statfs("/", &fs); err != nil {
		return fmt.Errorf("--root-storage: find out where / is: %w", err)
	}
	if !isMemory(fs.Type) {
		return &hint.Error{
			Err:  fmt.Errorf("--root-storage: this is no initramfs, because / is not in memory: %w", unix.EINVAL),
			Hint: "docs/root.md says how to boot from a device",
		}
	}
	o.standalone = true
	return nil
}

// isMemory reports whether a file system of this type is the kernel's for an initramfs.
func isMemory(fsType int64) bool { return fsType == unix.TMPFS_MAGIC || fsType == unix.RAMFS_MAGIC }

// hintNextBoot is the hint when the server of the root file system cannot change.
const hintNextBoot = "update the initramfs (update-initramfs -u, or dracut -f) and boot again"

// refuseRoot returns an error if a device holds the root file system. Without it, nothing
// works that is not in memory already.
func refuseRoot(drv driver, id uint32) error {
	devices, err := drv.List()
	if err != nil {
		return err
	}
	for i := range devices {
		if devices[i].ID == id && isRoot(&devices[i]) {
			return &hint.Error{
				Err:  fmt.Errorf("the device is for the root file system: %w", unix.EBUSY),
				Hint: "without --force it is removed when it is no longer in use",
			}
		}
	}
	return nil
}

// isRoot reports whether a device has a server that was started for the root file system.
func isRoot(d *client.Device) bool { return d.PID > 0 && process.SurvivesShutdown(d.PID) }

// noServer explains why there is no server to upgrade, if only the root file system has one.
func (a *app) noServer(err error) error {
	if !errors.Is(err, client.ErrNoServer) {
		return err
	}
	drv, openErr := a.open()
	if openErr != nil {
		return err
	}
	defer func() { _ = drv.Close() }()
	devices, listErr := drv.List()
	if listErr != nil {
		return err
	}
	for i := range devices {
		if isRoot(&devices[i]) {
			return &hint.Error{
				Err:  fmt.Errorf("the server of %s is for the root file system and comes from the initramfs: %w", ublk.BlockPath(devices[i].ID), err),
				Hint: hintNextBoot,
			}
		}
	}
	return err
}
