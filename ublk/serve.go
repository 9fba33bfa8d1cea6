package ublk

import (
	"context"
	"errors"
)

// Describer is a Target that knows some of its device's parameters.
type Describer interface {
	Target
	// Describe sets these parameters. [Serve] calls it before it describes the device to
	// the driver.
	Describe(*Params)
}

// ServeOptions describe the device that [Serve] makes.
type ServeOptions struct {
	// Options are for [Control.Add]. The zero value suits a [Disk].
	Options
	// Params describe the disk: at least its Size.
	Params Params
	// Ready is called when the disk can be used, unless it is nil. It must not wait for
	// the device's end.
	Ready func(*Device)
}

// Serve makes a device, serves it until ctx is done or another process stops it, and removes
// it. Before the removal the kernel writes dirty pages to the target, and Serve waits for that.
// After it, users of the disk get errors. Serve returns nil after such an end.
func Serve(ctx context.Context, target Target, opts ServeOptions) error {
	ctl, err := OpenControl()
	if err != nil {
		return err
	}
	return errors.Join(ctl.serve(ctx, target, opts), ctl.Close())
}

func (c *Control) serve(ctx context.Context, target Target, opts ServeOptions) error {
	if d, ok := target.(Describer); ok {
		d.Describe(&opts.Params)
	}
	dev, err := c.Add(opts.Options)
	if err != nil {
		return err
	}
	if err := dev.start(target, opts.Params); err != nil {
		return errors.Join(err, dev.Close())
	}
	if opts.Ready != nil {
		opts.Ready(dev)
	}
	select {
	case <-ctx.Done():
	case <-dev.Done():
	}
	err = dev.Close()
	return errors.Join(dev.Err(), err)
}

// start describes the device and starts it.
func (d *Device) start(target Target, p Params) error {
	if err := d.SetParams(p); err != nil {
		return err
	}
	return d.Start(target)
}
