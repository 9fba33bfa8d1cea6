package main

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/internal/wire"
	"github.com/ublk-loop/ublk-loop/loop"
	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/uapi"
)

// kernel is the ublk driver of the running kernel.
type kernel struct {
	ctl *ublk.Control
}

var _ driver = (*kernel)(nil)

func openKernel() (driver, error) {
	ctl, err := ublk.OpenControl()
	if err != nil {
		return nil, err
	}
	return &kernel{ctl}, nil
}

// openDevices opens the driver for a command that works on devices that exist. Without a driver none
// exists, as after a boot.
func (a *app) openDevices() (driver, error) {
	drv, err := a.open()
	if errors.Is(err, ublk.ErrNoDriver) {
		return noDevices{}, nil
	}
	return drv, err
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

// noDevices is the driver while it is not loaded. It has only what openDevices is for.
type noDevices struct{ driver }

// List implements driver.
func (noDevices) List() ([]client.Device, error) { return nil, nil }

// Find implements driver.
func (noDevices) Find(*os.File) ([]client.Device, error) { return nil, nil }

// CheckFree implements driver.
func (noDevices) CheckFree(*os.File, bool) error { return nil }

// Device implements driver.
func (noDevices) Device(id uint32) (client.Device, error) {
	return client.Device{}, fmt.Errorf("%s: %w", ublk.BlockPath(id), unix.ENODEV)
}

// Detach implements driver. As for other devices that do not exist, it succeeds.
func (noDevices) Detach(uint32, loop.DetachOptions) error { return nil }

// Close implements driver.
func (noDevices) Close() error { return nil }

// List implements driver.
func (k *kernel) List() ([]client.Device, error) {
	list, err := loop.List(k.ctl)
	return wire.Devices(list), err
}

// Device implements driver.
func (k *kernel) Device(id uint32) (client.Device, error) {
	s, err := loop.Look(k.ctl, id)
	if err != nil {
		return client.Device{}, err
	}
	return wire.Device(&s), nil
}

// IDs implements driver.
func (k *kernel) IDs() ([]uint32, error) {
	list, err := k.ctl.List()
	ids := make([]uint32, len(list))
	for i := range list {
		ids[i] = list[i].ID
	}
	return ids, err
}

// Find implements driver.
func (k *kernel) Find(file *os.File) ([]client.Device, error) {
	list, err := loop.Find(k.ctl, file)
	return wire.Devices(list), err
}

// WaitsForServer implements driver.
func (k *kernel) WaitsForServer(file *os.File, cfg *loop.Config) (bool, error) {
	return loop.WaitsForServer(k.ctl, file, cfg)
}

// CheckFree implements driver.
func (k *kernel) CheckFree(file *os.File, readOnly bool) error {
	return loop.CheckFree(k.ctl, file, readOnly)
}

// Detach implements driver.
func (k *kernel) Detach(id uint32, opts loop.DetachOptions) error {
	return loop.Detach(k.ctl, id, opts)
}

// Resize implements driver.
func (k *kernel) Resize(id uint32, opts loop.ResizeOptions) error {
	return loop.Resize(k.ctl, id, opts)
}

// Close implements driver.
func (k *kernel) Close() error { return k.ctl.Close() }

// Features implements driver. Before Linux 6.15 the driver offers a zero copy
// that it does not have, and takes it from a device that asks for it; a device
// is made to find out.
func (k *kernel) Features() (ublk.Features, error) {
	offered, err := k.ctl.Features()
	if err != nil || !offered.Has(uapi.UBLK_F_SUPPORT_ZERO_COPY) || offered.Has(uapi.UBLK_F_AUTO_BUF_REG) {
		return offered, err
	}
	dev, err := k.ctl.Add(ublk.Options{Queues: 1, Depth: 1, Mode: ublk.BufferRegister})
	if errors.Is(err, ublk.ErrNotSupported) {
		return offered &^ uapi.UBLK_F_SUPPORT_ZERO_COPY, nil
	}
	if err != nil {
		return 0, err
	}
	return offered, dev.Close()
}
