package driver

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/cmd/ublk-loop-csi/mounts"
	"github.com/ublk-loop/ublk-loop/cmd/ublk-loop-csi/pool"
)

// Reconcile compares the records with the kernel, and completes or undoes what an earlier
// driver left half done. It does so once; every call of CSI waits for it. An object that cannot be removed is reported,
// and keeps the others from nothing.
func (d *Driver) Reconcile(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.reconciled {
		return nil
	}
	devices, err := d.devices.list(ctx)
	if err != nil {
		return err
	}
	table, err := mounts.Read()
	if err != nil {
		return err
	}
	d.report(errors.Join(d.pool.Volumes.RemoveUnfinished(), d.pool.Snapshots.RemoveUnfinished(), d.pool.Layers.RemoveUnfinished()))
	err = errors.Join(d.reconcileSnapshots(), d.reconcileVolumes(ctx, devices, table))
	d.collect()
	if d.reconciled = err == nil; d.reconciled {
		d.wakeMerger()
	}
	return err
}

// reconcileSnapshots deletes snapshots that are not complete. Their calls got no answer.
func (d *Driver) reconcileSnapshots() error {
	list, damaged, err := d.pool.Snapshots.All()
	d.reportAll(damaged)
	for _, s := range list {
		if s.State == pool.Ready {
			continue
		}
		if err := d.discardSnapshot(s); err != nil {
			d.report(fmt.Errorf("reconcile snapshot %s: %w", s.ID, err))
		}
	}
	return err
}

// report reports an error, if it is one.
func (d *Driver) report(err error) {
	if err != nil {
		d.opts.Report(err)
	}
}

// reconcileVolumes reconciles each volume. A volume with an error does not keep the others
// from being used; the calls for it report the error again.
func (d *Driver) reconcileVolumes(ctx context.Context, devices []client.Device, table mounts.Table) error {
	list, damaged, err := d.pool.Volumes.All()
	d.reportAll(damaged)
	if err != nil {
		return err
	}
	for _, v := range list {
		err := d.reconcileVolume(ctx, v, devices, table)
		switch {
		case errors.Is(err, client.ErrNoServer), errors.Is(err, errSilent), ctx.Err() != nil:
			return err
		case err != nil:
			d.opts.Report(fmt.Errorf("reconcile volume %s: %w", v.ID, err))
		}
	}
	return nil
}

// reportAll reports records that are damaged. The driver leaves their volumes and snapshots
// alone, and calls for them fail.
func (d *Driver) reportAll(damaged []error) {
	for _, err := range damaged {
		d.opts.Report(err)
	}
}

// reconcileVolume deletes a volume that is not complete, because its call got no answer.
func (d *Driver) reconcileVolume(ctx context.Context, v *pool.Volume, devices []client.Device, table mounts.Table) error {
	if v.State != pool.Ready {
		return d.discard(v)
	}
	if v.Next != "" {
		if err := d.settle(ctx, v); err != nil {
			return err
		}
		var err error
		if devices, err = d.devices.list(ctx); err != nil { // the device can have other files now
			return err
		}
	}
	device, err := d.deviceIn(devices, v)
	if err != nil {
		return err
	}
	return d.reconcileUse(ctx, v, device, table)
}

// deviceIn finds the device of a volume in a list, nil if there is none.
func (d *Driver) deviceIn(devices []client.Device, v *pool.Volume) (*client.Device, error) {
	image, err := d.pool.OpenDisk(v, unix.O_PATH)
	if err != nil {
		return nil, err
	}
	defer func() { _ = image.Close() }()
	for i := range devices {
		if is, err := devices[i].Uses(image); is || err != nil {
			return &devices[i], err
		}
	}
	return nil, nil
}

// reconcileUse drops what the record has and the kernel has not, such as after the start
// of the machine, and removes a device that no record explains.
func (d *Driver) reconcileUse(ctx context.Context, v *pool.Volume, device *client.Device, table mounts.Table) error {
	was := len(v.Publications)
	v.Publications = slices.DeleteFunc(v.Publications, func(p pool.Publication) bool { return table.At(p.Target) == nil })
	staged := v.Stage != nil && d.isStaged(v, device, table)
	switch {
	case staged && v.Stage.Block:
		if err := d.holdAgain(ctx, v, device); err != nil {
			return err
		}
	case staged:
		d.thawAtStart(v.Stage.Path)
	case !staged && len(v.Publications) == 0:
		if err := d.dropStage(ctx, v, device, table); err != nil {
			return err
		}
	}
	if v.Settings.Ephemeral && len(v.Publications) == 0 {
		return d.endEphemeral(ctx, v)
	}
	if was == len(v.Publications) {
		return nil
	}
	return d.pool.Volumes.Write(v.ID, v)
}

// isStaged reports whether the kernel shows that a volume is staged.
func (d *Driver) isStaged(v *pool.Volume, device *client.Device, table mounts.Table) bool {
	if device == nil {
		return false
	}
	if v.Stage.Block {
		return device.State == live || device.State == waitsForKey
	}
	m := table.At(v.Stage.Path)
	return m != nil && m.MajMin == device.MajMin
}

// holdAgain opens the device of a block volume. A device that waits for its key is opened when it is
// staged again.
func (d *Driver) holdAgain(ctx context.Context, v *pool.Volume, device *client.Device) error {
	if device.State != live {
		return nil
	}
	h, err := d.devices.server.open(ctx, device)
	if err != nil {
		return err
	}
	d.devices.hold(v.ID, h)
	return nil
}

// dropStage undoes a stage that was interrupted, and forgets it. A stage whose file system
// is still mounted, on a device that is gone, stays for NodeUnstageVolume.
func (d *Driver) dropStage(ctx context.Context, v *pool.Volume, device *client.Device, table mounts.Table) error {
	if v.Stage != nil && table.At(v.Stage.Path) != nil && !v.Stage.Block {
		return nil
	}
	if device != nil {
		if err := d.detach(ctx, v); err != nil {
			return err
		}
	}
	if v.Stage == nil {
		return nil
	}
	v.Stage = nil
	return d.pool.Volumes.Write(v.ID, v)
}
