package driver

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/cmd/ublk-loop-csi/pool"
)

// A layer that only the store above it needs is merged with this store, while devices use both:
//
//	image or stores are written, so that another layer has the content of the upper one
//	the record of the upper layer says so (pool.Layer.Into)
//	devices with the layers get tables without them
//	unused files are removed
//
// A crash leaves the layers, or a record that says Into. The next driver goes on from there.

// mergeLayers merges layers until there are none left that can be merged. A layer with an error keeps no others from that.
func (d *Driver) mergeLayers(ctx context.Context) error {
	d.merging.Lock()
	defer d.merging.Unlock()
	var kept []error
	for tried := map[string]bool{}; ; {
		f, err := d.forest()
		if err != nil || f == nil {
			return errors.Join(append(kept, err)...)
		}
		if l := f.merged(tried); l != nil {
			tried[l.ID] = true
			if err := d.retire(ctx, l); err != nil {
				kept = append(kept, fmt.Errorf("remove layer %s, which was merged: %w", l.ID, err))
			}
			continue
		}
		upper := f.mergeable(d.pool, tried)
		if upper == nil || ctx.Err() != nil {
			return errors.Join(append(kept, ctx.Err())...)
		}
		if err := d.merge(ctx, f, upper); err != nil {
			tried[upper.ID] = true
			kept = append(kept, err)
		}
	}
}

// merge makes another layer have the content of a store. The records say so before and after.
func (d *Driver) merge(ctx context.Context, f *forest, upper *pool.Layer) error {
	lower := f.below(upper)
	if err := d.checkMergeSpace(lower, upper); err != nil {
		return err
	}
	into := lower.ID
	if lower.IsStore() {
		into = pool.NewLayerID(d.opts.Node)
	}
	found, err := d.changeLayer(upper.ID, func(l *pool.Layer) {
		l.Parent, l.Next = lower.ID, ""
		if lower.IsStore() {
			l.Next = into
		}
	})
	if !found || err != nil {
		return err
	}
	upper.Parent = lower.ID
	if lower.IsStore() {
		d.opts.Step("merge: new store recorded")
		err = d.pool.MergeStores(ctx, into, lower, upper)
		d.opts.Step("merge: new store made")
	} else {
		err = d.pool.MergeIntoImage(ctx, upper)
		d.opts.Step("merge: image written")
	}
	if found, e := d.changeLayer(upper.ID, func(l *pool.Layer) {
		if l.Next = ""; err == nil {
			l.Into = into
		}
	}); !found || e != nil {
		d.collect()
		return e // the layers were removed meanwhile
	}
	if err != nil {
		d.report(d.removeUnneeded()) // the new store; it does not wake the merger
		return err
	}
	d.opts.Step("merge: recorded")
	return nil
}

// checkMergeSpace refuses a merge for which the pool has too little space.
func (d *Driver) checkMergeSpace(lower, upper *pool.Layer) error {
	need, err := d.pool.Layers.Allocated(upper.ID)
	if err != nil {
		return err
	}
	has, err := d.pool.Layers.Allocated(lower.ID)
	if err != nil {
		return err
	}
	if lower.IsStore() {
		need += has
	} else {
		need = min(need, max(lower.Size-has, 0)) // the image keeps its blocks
	}
	space, err := d.pool.Space()
	if err != nil {
		return err
	}
	if free := space.Free - d.opts.Reserve; free < need {
		return fmt.Errorf("layers are not merged: %d bytes are free besides the reserve, and the merge may take %d: %w", free, need, unix.ENOSPC)
	}
	return nil
}

// changeLayer changes the record of a layer, if there still is one.
func (d *Driver) changeLayer(id string, change func(*pool.Layer)) (found bool, err error) {
	d.layers.Lock()
	defer d.layers.Unlock()
	l, err := d.pool.Layers.Read(id)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	change(l)
	return true, d.pool.Layers.Write(id, l)
}

// retire removes the files of a merged layer, after devices that have them got other tables. They
// stay if a device keeps them, such as one that waits for a server.
func (d *Driver) retire(ctx context.Context, l *pool.Layer) error {
	ids := []string{l.ID}
	if l.Parent != l.Into {
		ids = append(ids, l.Parent)
	}
	err := d.reloadAndRemove(ctx, l.ID, ids)
	if errors.Is(err, unix.EBUSY) { // a device was made meanwhile, with the records of before the merge
		err = d.reloadAndRemove(ctx, l.ID, ids)
	}
	if err != nil {
		return err
	}
	if _, err := d.changeLayer(l.ID, func(l *pool.Layer) { l.Parent = "" }); err != nil {
		return err
	}
	d.opts.Step("merge: files removed")
	d.collect()
	return nil
}

// reloadAndRemove gives the devices of the layers ids their new layers, and removes the file of the
// merged layer id. If a device still has one of the layers, it returns an error that wraps EBUSY.
func (d *Driver) reloadAndRemove(ctx context.Context, id string, ids []string) error {
	if err := d.reload(ctx, ids); err != nil {
		return err
	}
	d.opts.Step("merge: devices reloaded")
	d.chains.Lock()
	defer d.chains.Unlock()
	users, err := d.usersOf(ctx, ids)
	if err != nil {
		return err
	}
	if len(users) > 0 {
		return fmt.Errorf("%s has it: %w", users[0].Device, unix.EBUSY)
	}
	return d.pool.Layers.RemoveImage(id)
}

// reload gives the devices that have some layers tables of the layers that they need now.
func (d *Driver) reload(ctx context.Context, ids []string) error {
	failed := map[string]string{} // the upper layer with which a device could not be reloaded
	for {
		users, err := d.usersOf(ctx, ids)
		if err != nil {
			return err
		}
		again := false
		for i := range users {
			device := &users[i]
			if device.State != live || device.Table == "" {
				continue
			}
			top := device.Files[len(device.Files)-1].File
			err := d.reloadDevice(ctx, device, top)
			switch {
			case err == nil, client.HasStatus(err, http.StatusNotFound):
			case failed[device.Device] == top:
				return fmt.Errorf("reload %s: %w", device.Device, err)
			default: // it may have got a store above its layers since
				failed[device.Device], again = top, true
			}
		}
		if !again {
			return nil
		}
	}
}

// reloadDevice gives a device the tables for its upper layer.
func (d *Driver) reloadDevice(ctx context.Context, device *client.Device, top string) error {
	d.chains.RLock()
	defer d.chains.RUnlock()
	chain, err := d.pool.Chain(strings.TrimSuffix(filepath.Base(top), filepath.Ext(top)))
	if err != nil {
		return err
	}
	files, err := d.pool.OpenLayers(chain, unix.O_PATH)
	if err != nil {
		return err
	}
	defer pool.CloseLayers(files)
	cover, err := coverOf(device)
	if err != nil {
		return err
	}
	return d.devices.server.reload(ctx, device, d.pool.Table(chain, cover), files)
}

// usersOf returns the devices that have one of some layers.
func (d *Driver) usersOf(ctx context.Context, ids []string) (users []client.Device, err error) {
	list, err := d.devices.list(ctx)
	if err != nil {
		return nil, err
	}
	var files []*os.File
	defer func() { pool.CloseLayers(files) }()
	for _, id := range ids {
		f, err := d.pool.Layers.OpenImage(id, unix.O_PATH)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	for i := range list {
		for _, f := range files {
			if is, err := list[i].Uses(f); err != nil {
				return nil, err
			} else if is {
				users = append(users, list[i])
				break
			}
		}
	}
	return users, nil
}
