package driver

import (
	"context"
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/cmd/ublk-loop-csi/pool"
)

// isLayered reports whether a volume writes to a store.
func (d *Driver) isLayered(v *pool.Volume) (bool, error) {
	if v.Top == "" {
		return false, nil
	}
	top, err := d.pool.Layers.Read(v.Top)
	return err == nil && top.IsStore(), err
}

// attachLayers returns the open device of a volume with layers.
func (d *Driver) attachLayers(ctx context.Context, v *pool.Volume, cfg client.Config) (*client.Held, error) {
	d.chains.RLock()
	defer d.chains.RUnlock()
	chain, err := d.pool.Chain(v.Top)
	if err != nil {
		return nil, err
	}
	files, err := d.pool.OpenLayers(chain, unix.O_PATH)
	if err != nil {
		return nil, err
	}
	defer pool.CloseLayers(files)
	req := client.AddRequest{Table: d.pool.Table(chain), Config: cfg}
	return d.devices.attach(ctx, files[len(files)-1], req, client.Files{Table: files})
}

// prepareDisk gives the disk of a volume the size that the record has, which may have grown while
// the volume had no device, and the layers that it should have. The layers of a volume in use
// stay as they are.
func (d *Driver) prepareDisk(ctx context.Context, v *pool.Volume) error {
	if v.Top == "" {
		return d.pool.Volumes.Grow(v.ID, pool.ImageSize(v.Size, v.Settings.Encrypted), v.Settings.Thick)
	}
	top, err := d.pool.Layers.Read(v.Top)
	if err != nil {
		return err
	}
	if top.IsStore() {
		if top.Size == v.Size {
			return nil
		}
		device, err := d.device(ctx, v)
		if device != nil || err != nil {
			return err
		}
		if err := d.flatten(ctx, v); err != nil {
			return err
		}
	}
	return d.growLayer(ctx, v)
}

// growLayer gives the image that is the only layer of a volume the volume's size, and puts a store
// above it, so that the volume can be copied in use.
func (d *Driver) growLayer(ctx context.Context, v *pool.Volume) error {
	top, err := d.pool.Layers.Read(v.Top)
	if err != nil {
		return err
	}
	if top.Size != v.Size {
		if err := d.pool.Layers.Grow(top.ID, v.Size, false); err != nil {
			return err
		}
		top.Size = v.Size
		if err := d.pool.Layers.Write(top.ID, top); err != nil {
			return err
		}
	}
	device, err := d.device(ctx, v)
	if device != nil || err != nil {
		return err
	}
	if err := d.makeNext(v, v.Top); err != nil {
		return errors.Join(err, d.settle(ctx, v))
	}
	return d.settle(ctx, v)
}

// openChain opens a layer and those below it for reading. Then the layers can be merged, because the
// open files still have the content.
func (d *Driver) openChain(top string) (chain []*pool.Layer, files []*os.File, err error) {
	d.chains.RLock()
	defer d.chains.RUnlock()
	if chain, err = d.pool.Chain(top); err == nil {
		files, err = d.pool.OpenLayers(chain, os.O_RDONLY)
	}
	return chain, files, err
}

// flatten makes the layers of a volume without a device one image.
func (d *Driver) flatten(ctx context.Context, v *pool.Volume) error {
	chain, files, err := d.openChain(v.Top)
	if err != nil {
		return err
	}
	defer pool.CloseLayers(files)
	v.Next = pool.NewLayerID(d.opts.Node)
	if err := d.pool.Volumes.Write(v.ID, v); err != nil {
		return err
	}
	d.opts.Step("flatten: recorded")
	err = d.pool.FlattenLayer(ctx, v.Next, chain, files)
	d.opts.Step("flatten: copied")
	return errors.Join(err, d.settle(context.WithoutCancel(ctx), v))
}

// startsLayered reports whether a new volume has layers from its beginning.
func (d *Driver) startsLayered(v *pool.Volume, src *source) bool {
	if !d.canLayer(&v.Settings) {
		return false
	}
	if src.size != 0 && src.size != v.Size {
		return false // the layers are copied, because they have the size of the source
	}
	return v.Settings.Layered || src.layer != "" || src.volume != nil
}

// fillFromLayers makes the layers of a volume, or an image with the content of layers.
func (d *Driver) fillFromLayers(ctx context.Context, v *pool.Volume, src *source) error {
	layer := src.layer
	if src.volume != nil {
		var err error
		if layer, err = d.prepareDivision(ctx, src.volume); err != nil {
			return err
		}
		if err := d.divide(ctx, src.volume, layer); err != nil {
			return err
		}
	}
	if v.Top != "" {
		return d.makeTop(v, layer)
	}
	chain, files, err := d.openChain(layer)
	if err != nil {
		return err
	}
	defer pool.CloseLayers(files)
	return d.pool.FlattenVolume(ctx, v.ID, chain, files, v.Size, v.Settings.Thick)
}

// makeTop makes the upper layer of a new volume, above a layer or above an empty image.
func (d *Driver) makeTop(v *pool.Volume, layer string) error {
	d.layers.RLock()
	defer d.layers.RUnlock()
	if layer == "" {
		layer = pool.NewLayerID(d.opts.Node)
		if err := d.pool.MakeImageLayer(layer, v.Size); err != nil {
			return err
		}
	}
	return d.pool.MakeStore(v.Top, layer)
}
