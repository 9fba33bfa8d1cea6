package losetup

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/internal/report"
)

// Run carries out a command line, and returns the exit status: 0 or 1.
func (c *Command) Run(ctx context.Context, args []string) int {
	r, err := parse(args)
	if err == nil {
		err = c.carryOut(ctx, r)
	}
	var usage *usageError
	switch {
	case err == nil:
		return report.ExitDone
	case errors.Is(err, report.ErrReported):
	case errors.As(err, &usage):
		c.warn("%s", err)
		fmt.Fprintf(c.Err, "Try '%s --help' for more information.\n", c.Name)
	default:
		c.report(err)
	}
	return report.ExitFailed
}

// carryOut carries out a request. The text of an error lacks the name of the program.
func (c *Command) carryOut(ctx context.Context, r *request) error {
	switch r.action {
	case help:
		return c.help()
	case version:
		_, err := fmt.Fprintf(c.Out, "%s from ublk-loop %s, with the options of util-linux 2.42\n", c.Name, c.Version)
		return err
	case create:
		return c.create(ctx, r)
	case detach:
		return c.forEach(ctx, r, "detach failed", c.System.Detach)
	case detachAll:
		return c.detachAll(ctx)
	case setCapacity:
		r.devices = r.devices[:1] // losetup ignores further operands
		return c.forEach(ctx, r, "set capacity failed", c.System.Resize)
	case setDirectIO:
		return c.forEach(ctx, r, "set direct io failed", notSupported)
	case setBlockSize:
		return c.forEach(ctx, r, "set logical block size failed", notSupported)
	case remove:
		return errors.New("--remove has no meaning for ublk devices: a device that is detached no longer exists")
	case findFree:
		return c.findFree()
	case showOne:
		return c.showOne(r)
	}
	return c.show(r)
}

// notSupported is for a setting that a ublk device has for good.
func notSupported(context.Context, *client.Device) error {
	return hint.Add(unix.EOPNOTSUPP, "detach the device, and attach its file again with this option")
}

// forEach calls a function with each device of a request, and reports each error. It leaves
// the other devices alone when the context has ended.
func (c *Command) forEach(ctx context.Context, r *request, what string, do func(context.Context, *client.Device) error) error {
	all, err := c.System.List()
	if err != nil {
		return listError(err)
	}
	failed, done := false, map[uint32]bool{}
	for _, name := range r.devices {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		d, err := find(all, name)
		if err == nil && done[d.ID] {
			d, err = c.findAgain(d)
		}
		if err == nil {
			done[d.ID] = true
			err = do(ctx, d)
		}
		if err != nil {
			c.report(&failure{devicePath(name) + ": " + what, err})
			failed = true
		}
	}
	return reported(failed)
}

// findAgain returns a device that an earlier operand named too, and ENXIO if it is gone since. Another device can have its
// number by now.
func (c *Command) findAgain(d *client.Device) (*client.Device, error) {
	all, err := c.System.List()
	if err != nil {
		return nil, listError(err)
	}
	again, err := find(all, d.Device)
	if err == nil && again.DiskSequence != d.DiskSequence {
		return nil, unix.ENXIO
	}
	return again, err
}

// reported returns an error that stands for the reported ones, if there were any.
func reported(failed bool) error {
	if failed {
		return report.ErrReported
	}
	return nil
}

// detachAll detaches the devices of files. A device can be in use by another one of them, so that
// it is tried again after the others.
func (c *Command) detachAll(ctx context.Context) error {
	all, err := c.System.List()
	if err != nil {
		return listError(err)
	}
	failed := false
	for devices := ofFiles(all); len(devices) > 0; {
		var inUse []*client.Device
		var errs []error
		for _, d := range devices {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			err := c.System.Detach(ctx, d)
			if errors.Is(err, unix.EBUSY) {
				inUse = append(inUse, d)
			}
			if err != nil {
				errs = append(errs, &failure{d.Device + ": detach failed", err})
			}
		}
		again := len(inUse) < len(devices)
		for _, err := range errs {
			if !again || !errors.Is(err, unix.EBUSY) {
				c.report(err)
				failed = true
			}
		}
		devices = inUse
		if !again {
			break
		}
	}
	return reported(failed)
}

// findFree prints the path of the next device.
func (c *Command) findFree() error {
	id, err := c.System.NextID()
	if err != nil {
		return &failure{"cannot find an unused loop device", err}
	}
	_, err = fmt.Fprintln(c.Out, blockPath(id))
	return err
}

// showOne prints one device.
func (c *Command) showOne(r *request) error {
	all, err := c.System.List()
	if err != nil {
		return listError(err)
	}
	d, err := find(all, r.devices[0])
	if err == nil && d.File == "" {
		d, err = nil, hint.Add(unix.ENXIO, "it is a device of tables, which ublk-loop list shows")
	}
	switch {
	case r.list:
		return r.format.print(c.Out, r.columns, []*client.Device{d}, devicePath(r.devices[0]))
	case err != nil:
		return &failure{devicePath(r.devices[0]), err}
	}
	return oldFormat(c.Out, d)
}

// show prints all devices, or those of a file.
func (c *Command) show(r *request) error {
	all, err := c.System.List()
	if err != nil {
		return listError(err)
	}
	devices := ofFiles(all)
	if r.hasFile {
		devices = r.ofFile(devices)
	}
	if r.list {
		return r.format.print(c.Out, r.columns, devices, "")
	}
	for _, d := range devices {
		if err := oldFormat(c.Out, d); err != nil {
			return err
		}
	}
	return nil
}

func listError(err error) error { return &failure{"list devices", err} }
