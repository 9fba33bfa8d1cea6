package driver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/cmd/ublk-loop-csi/pool"
	"github.com/ublk-loop/ublk-loop/transfer/table"
)

// divides reports whether copies of a volume share layers with it. Otherwise they share blocks
// with its image, or its data is copied.
func (d *Driver) divides(v *pool.Volume) bool { return v.Top != "" || d.canLayer(v) }

// canLayer reports whether a volume can have layers. An ephemeral volume is never copied. An encrypted
// volume needs its LUKS header first, which is written to the image.
func (d *Driver) canLayer(v *pool.Volume) bool {
	s := &v.Settings
	return !d.pool.Shares && d.pool.CanLayer() && !s.Ephemeral && (!s.Encrypted || v.LUKS == pool.Formatted)
}

// prepareDivision makes divide possible, and returns the id of the layer that gets a store above it.
func (d *Driver) prepareDivision(ctx context.Context, v *pool.Volume) (layer string, err error) {
	device, err := d.device(ctx, v)
	if err == nil {
		err = d.makeRoom(ctx, v, device)
	}
	if err == nil && v.Settings.Thick {
		err = d.checkStoreSpace(v)
	}
	return v.Top, err
}

// checkStoreSpace refuses a copy of a thick volume if the pool has no space for a change of each of its
// blocks.
func (d *Driver) checkStoreSpace(v *pool.Volume) error {
	need, err := pool.StoreBytes(v.ImageSize())
	if err != nil {
		return err
	}
	return d.checkChanges("copy", v, need)
}

// checkChanges refuses a copy or a snapshot of a thick volume if the pool has no space for its changes, in bytes.
func (d *Driver) checkChanges(kind string, v *pool.Volume, need int64) error {
	left, err := d.available("", true)
	if err == nil && need > left {
		err = status.Errorf(codes.ResourceExhausted, "a %s of the thick volume %q reserves %d bytes for its changes; the pool of node %s has space for %d", kind, v.ID, need, d.opts.Node, left)
	}
	return err
}

// divide freezes a layer, the upper one of a volume, so that nothing writes to it. The volume gets an
// empty store above it. The device of a volume in use goes on with the store.
func (d *Driver) divide(ctx context.Context, v *pool.Volume, layer string) error {
	device, err := d.device(ctx, v)
	if err != nil {
		return err
	}
	if err := d.makeNext(v, layer); err != nil {
		return errors.Join(err, d.conclude(ctx, v))
	}
	if device != nil {
		asked := false
		err = d.withQuiet(ctx, v, device, func() error {
			d.opts.Step("divide: frozen")
			asked = true
			return d.fork(ctx, v, device)
		})
		if d.opts.Step("divide: forked"); asked && !isAnswered(err) {
			return err // the next call settles it
		}
	}
	top := v.Next
	if e := d.conclude(context.WithoutCancel(ctx), v); v.Top != top || e != nil {
		return errors.Join(err, e)
	}
	return nil
}

// makeRoom refuses to divide a volume whose device cannot change over, or whose chain is too
// long. A chain that no device uses becomes one image.
func (d *Driver) makeRoom(ctx context.Context, v *pool.Volume, device *client.Device) error {
	if device == nil {
		if err := d.prepareDisk(ctx, v); err != nil || v.Top == "" {
			return err
		}
	} else if err := checkChangeOver(v, device); err != nil {
		return err
	}
	n, err := d.layersOf(v, device)
	if err != nil || n < pool.MaxChain {
		return err
	}
	if err := d.mergeLayers(ctx); err != nil {
		d.opts.Report(err)
	}
	if device != nil {
		if device, err = d.device(ctx, v); err != nil {
			return err
		}
	}
	if n, err = d.layersOf(v, device); err != nil || n < pool.MaxChain {
		return err
	}
	if f, err := d.forest(); err != nil || f != nil && n == pool.MaxChain && f.mergesBelow(v.Top) {
		return err
	}
	if device != nil {
		return status.Errorf(codes.FailedPrecondition, "the volume is in use and has %d layers, which snapshots and other volumes need; delete some of them, or stop its pods once", n)
	}
	return d.flatten(ctx, v)
}

// checkChangeOver refuses to divide a volume whose device cannot get a store.
func checkChangeOver(v *pool.Volume, device *client.Device) error {
	switch {
	case device.Table == "":
		return status.Errorf(codes.FailedPrecondition, "the volume is in use since before an update of the driver, and %v; stop its pods once", pool.ErrNoReflink)
	case len(device.Files) == 1 && device.Size != uint64(v.Size):
		return status.Errorf(codes.FailedPrecondition, "the volume has grown to %d bytes, its device has %d; stop its pods once", v.Size, device.Size)
	}
	return nil
}

// layersOf returns the number of layers of a volume, or that of its device if it has more.
func (d *Driver) layersOf(v *pool.Volume, device *client.Device) (int, error) {
	chain, err := d.pool.Chain(v.Top)
	if device == nil {
		return len(chain), err
	}
	return max(len(chain), len(device.Files)), err
}

// makeNext makes a store above a layer. The record of the volume leads to the store before it exists.
func (d *Driver) makeNext(v *pool.Volume, layer string) error {
	d.layers.RLock()
	defer d.layers.RUnlock()
	v.Next = pool.NewLayerID(d.opts.Node)
	if err := d.pool.Volumes.Write(v.ID, v); err != nil {
		return err
	}
	d.opts.Step("divide: recorded")
	if err := d.pool.MakeStore(v.Next, layer, v.Settings.Thick); err != nil {
		return err
	}
	d.opts.Step("divide: store made")
	return nil
}

// device returns the device of a volume, nil if there is none.
func (d *Driver) device(ctx context.Context, v *pool.Volume) (*client.Device, error) {
	disk, err := d.pool.OpenDisk(v, unix.O_PATH)
	if err != nil {
		return nil, err
	}
	defer func() { _ = disk.Close() }()
	return d.devices.of(ctx, disk)
}

// coverOf returns the line that encrypts what a device's layers have, nil if there is none.
func coverOf(device *client.Device) (*table.Crypt, error) {
	tables, err := table.Parse([]byte(device.Table), table.Options{})
	if err != nil {
		return nil, fmt.Errorf("the tables of %s: %w", device.Device, err)
	}
	return tables.Cover(), nil
}

// collect removes the layers that no volume and no snapshot needs, and images that have become
// layers. It reports what it cannot remove: the call that has made a layer unneeded has taken place, and others are not
// concerned.
func (d *Driver) collect() {
	d.report(d.removeUnneeded())
	d.wakeMerger() // layers may have lost all but one of those that need them
}

// removeUnneeded removes nothing if a record is damaged, because that may need any layer.
func (d *Driver) removeUnneeded() error {
	d.layers.Lock()
	defer d.layers.Unlock()
	layers, damaged, err := d.pool.Layers.All()
	if len(layers) == 0 || len(damaged) > 0 || err != nil {
		return err
	}
	volumes, damagedVolumes, err := d.pool.Volumes.All()
	if err != nil {
		return err
	}
	snapshots, damagedSnapshots, err := d.pool.Snapshots.All()
	if err != nil || len(damagedVolumes)+len(damagedSnapshots) > 0 {
		return err
	}
	needed := map[string]bool{}
	for _, v := range volumes {
		needed[v.Top], needed[v.Next] = true, true
		if v.Top != "" {
			err = errors.Join(err, d.pool.Volumes.RemoveImage(v.ID))
		}
	}
	for _, s := range snapshots {
		needed[s.Layer] = true
	}
	for id := range unneeded(layers, needed) {
		err = errors.Join(err, d.pool.Layers.Remove(id))
	}
	return err
}

// unneeded returns the ids of the layers that are not needed, and that no needed layer leads to.
func unneeded(layers []*pool.Layer, needed map[string]bool) map[string]bool {
	rest, todo := map[string]*pool.Layer{}, slices.Collect(maps.Keys(needed))
	for _, l := range layers {
		rest[l.ID] = l
	}
	for len(todo) > 0 {
		id := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if l := rest[id]; l != nil {
			delete(rest, id)
			todo = append(todo, l.Parent, l.Next, l.Into)
		}
	}
	ids := map[string]bool{}
	for id := range rest {
		ids[id] = true
	}
	return ids
}
