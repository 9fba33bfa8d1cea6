package ublk

import (
	"context"
	"errors"
)

// Describer is a Target that knows what its device can do.
type Describer interface {
	Target
	// Describe sets what the parameters say of that. [Serve] calls it before the
	// device is described to the driver.
	Describe(*Params)
}

// ServeOptions say what device [Serve] makes.
type ServeOptions struct {
	// Options are the device's. The zero value is right for a [Disk].
	Options
	// Params describe the disk: at least its Size.
	Params Params
	// Ready is called once the disk can be used, if it is not nil. It must not wait
	// for the device's end.
	Ready func(*Device)
}

// Serve makes a device, serves it until ctx is done or another process stops it, and
// removes it. What was written to the disk before is written to the target first, so
// Serve takes as long as that does, and users of the disk then get errors. It returns
// nil after such an end.
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
