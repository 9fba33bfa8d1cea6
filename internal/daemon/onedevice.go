package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/internal/control"
	"github.com/ublk-loop/ublk-loop/internal/report"
	"github.com/ublk-loop/ublk-loop/loop"
)

// others are the requests that a process of a single device has no route for.
type others interface{ control.Devices }

// oneDevice answers requests about the store of the device of this process.
type oneDevice struct {
	others // nil
	device *loop.Device
}

// Merge implements control.Devices.
func (o oneDevice) Merge(ctx context.Context, id uint32, sequence *uint64) (uint64, error) {
	if err := o.check(id, sequence); err != nil {
		return 0, err
	}
	return o.device.Merge(ctx)
}

// Fork implements control.Devices.
func (o oneDevice) Fork(id uint32, sequence *uint64, store *os.File, unnamed ...*loop.NewFile) (loop.Status, error) {
	if err := o.check(id, sequence); err != nil {
		return loop.Status{}, err
	}
	_, err := o.device.Fork(store, unnamed...)
	return o.device.Status(), err
}

// Device implements control.Devices.
func (o oneDevice) Device(id uint32) (loop.Status, error) {
	return o.device.Status(), o.check(id, nil)
}

// Stats implements control.Devices.
func (o oneDevice) Stats() []loop.DeviceStats { return []loop.DeviceStats{o.device.Stats()} }

// check returns an error that wraps ENODEV if a request is about another device.
func (o oneDevice) check(id uint32, sequence *uint64) error {
	status := o.device.Status()
	if id != status.ID || sequence != nil && *sequence != status.DiskSequence {
		return fmt.Errorf("device %d: %w", id, unix.ENODEV)
	}
	return nil
}

// noPaths refuses paths, because this process may have other mounts than its clients.
func noPaths(string) (*os.File, error) {
	return nil, fmt.Errorf("the process of a single device takes descriptors only: %w", unix.EINVAL)
}

// listenFor listens for requests about a device with a store. The socket is removed with the state
// of the device. end ends the requests.
func listenFor(device *loop.Device) (end func() error, err error) {
	end = func() error { return nil }
	if !device.HasStore() {
		return end, nil
	}
	path := client.DeviceSocket(device.ID())
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) { // of a killed server
		return end, err
	}
	listener, err := listenAt(path)
	if err != nil {
		return end, fmt.Errorf("listen for requests about the device: %w", err)
	}
	server := control.Server{Devices: oneDevice{device: device}, OneDevice: true, OpenTableDevice: noPaths, Hint: report.Template}
	api := server.StoreHTTP()
	served := make(chan error, 1)
	go func() { served <- control.Serve(api, listener) }() // received below
	return func() error { return errors.Join(api.Close(), <-served) }, nil
}
