package driver

import (
	"context"
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/cmd/ublk-loop-csi/pool"
)

// fork makes the device of a volume go on over the next store.
func (d *Driver) fork(ctx context.Context, v *pool.Volume, device *client.Device) error {
	store, err := d.pool.Layers.OpenImage(v.Next, os.O_RDWR)
	if err != nil {
		return err
	}
	defer func() { _ = store.Close() }()
	return d.devices.server.fork(ctx, device, client.NewStore{Path: d.pool.Layers.ImagePath(v.Next), File: store})
}

// isAnswered reports whether the server has answered a request with a result. Without an answer it may carry
// out the request at any time, also when the caller has given up or has ended.
func isAnswered(err error) bool {
	var refused *client.ServerError
	return err == nil || errors.As(err, &refused)
}

// settle ends a change of a volume's upper layer that a crash or a silent server has interrupted.
func (d *Driver) settle(ctx context.Context, v *pool.Volume) error {
	if v.Next == "" {
		return nil
	}
	if err := d.forkAgain(ctx, v); err != nil {
		return err
	}
	return d.conclude(ctx, v)
}

// forkAgain makes the device of a volume go on over the next store if it does not do so yet. The server may
// still carry out an earlier request for that, so the store must not be removed. It refuses the later one of
// both requests.
func (d *Driver) forkAgain(ctx context.Context, v *pool.Volume) error {
	next, err := d.pool.Layers.Read(v.Next)
	if errors.Is(err, os.ErrNotExist) || err == nil && (next.State != pool.Ready || !next.IsStore()) {
		return nil
	}
	if err != nil {
		return err
	}
	device, err := d.device(ctx, v)
	if err != nil || device == nil || device.State != live {
		return err
	}
	if has, err := d.has(device, v.Next); has || err != nil {
		return err
	}
	if err := d.fork(ctx, v, device); !isAnswered(err) {
		return err
	}
	return nil
}

// conclude ends a change of a volume's upper layer when no request for a fork is on its way. The device says
// whether it has changed over. Without a device both layers have the same content.
func (d *Driver) conclude(ctx context.Context, v *pool.Volume) error {
	if v.Next == "" {
		return nil
	}
	done, err := d.hasNext(ctx, v)
	if err != nil {
		return err
	}
	if done {
		v.Top = v.Next
	}
	v.Next = ""
	if err := d.pool.Volumes.Write(v.ID, v); err != nil {
		return err
	}
	d.opts.Step("divide: settled")
	d.collect()
	return nil
}

// hasNext reports whether the next upper layer of a volume can be its upper layer from now on.
func (d *Driver) hasNext(ctx context.Context, v *pool.Volume) (bool, error) {
	next, err := d.pool.Layers.Read(v.Next)
	if errors.Is(err, os.ErrNotExist) || err == nil && next.State != pool.Ready {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	device, err := d.device(ctx, v)
	if device == nil || err != nil {
		return err == nil, err
	}
	return d.has(device, v.Next)
}

// has reports whether a device has the image of a layer.
func (d *Driver) has(device *client.Device, layer string) (bool, error) {
	image, err := d.pool.Layers.OpenImage(layer, unix.O_PATH)
	if err != nil {
		return false, err
	}
	defer func() { _ = image.Close() }()
	return device.Uses(image)
}
