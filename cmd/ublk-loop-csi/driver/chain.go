package driver

import (
	"context"
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/cmd/ublk-loop-csi/pool"
)

// attachLayers returns the open device of a volume with layers. A volume with one layer, an image, has a
// device that writes to the image, and gets a store when the volume is copied.
func (d *Driver) attachLayers(ctx context.Context, v *pool.Volume, cfg client.Config) (*client.Held, error) {
	d.chains.RLock()
	defer d.chains.RUnlock()
	chain, files, err := d.openLayers(v)
	if err != nil {
		return nil, err
	}
	defer pool.CloseLayers(files)
	return d.devices.attach(ctx, files[len(files)-1], func() (*client.Device, error) {
		return d.devices.server.add(ctx, client.AddRequest{Table: d.pool.Table(chain, nil), Config: cfg}, client.Files{Table: files})
	})
}

// openLayers opens the layers of a volume for a device. The caller holds chains, and closes the files.
func (d *Driver) openLayers(v *pool.Volume) (chain []*pool.Layer, files []*os.File, err error) {
	if chain, err = d.pool.Chain(v.Top); err == nil {
		files, err = d.pool.OpenLayers(chain, unix.O_PATH)
	}
	return chain, files, err
}

// prepareDisk gives the disk of a volume the size that the record has, which may have grown while
// the volume had no device, and makes its image a layer if the volume can have layers. The layers of a
// volume in use stay as they are.
func (d *Driver) prepareDisk(ctx context.Context, v *pool.Volume) error {
	if v.Top == "" {
		err := d.pool.Volumes.Grow(v.ID, v.ImageSize(), v.Settings.Thick)
		if err != nil || !d.canLayer(v) {
			return err
		}
		return d.adopt(ctx, v)
	}
	top, err := d.pool.Layers.Read(v.Top)
	if err != nil {
		return err
	}
	if top.IsStore() {
		if top.Size == v.ImageSize() {
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
	return d.growLayer(v)
}

// growLayer gives the image that is the only layer of a volume the volume's size.
func (d *Driver) growLayer(v *pool.Volume) error {
	top, err := d.pool.Layers.Read(v.Top)
	if err != nil || top.Size == v.ImageSize() {
		return err
	}
	if err := d.pool.Layers.Grow(top.ID, v.ImageSize(), v.Settings.Thick); err != nil {
		return err
	}
	top.Size = v.ImageSize()
	return d.pool.Layers.Write(top.ID, top)
}

// adopt makes the image of a volume without a device the only layer of the volume. Its device then has
// a path that stays when the volume is copied. A device of an earlier driver has the image itself.
func (d *Driver) adopt(ctx context.Context, v *pool.Volume) error {
	device, err := d.device(ctx, v)
	if device != nil || err != nil {
		return err
	}
	err = d.makeLayer(v)
	return errors.Join(err, d.conclude(context.WithoutCancel(ctx), v))
}

// makeLayer makes the image of a volume a layer. The record of the volume leads to the layer before it
// exists.
func (d *Driver) makeLayer(v *pool.Volume) error {
	d.layers.RLock()
	defer d.layers.RUnlock()
	v.Next = pool.NewLayerID(d.opts.Node)
	if err := d.pool.Volumes.Write(v.ID, v); err != nil {
		return err
	}
	d.opts.Step("adopt: recorded")
	if err := d.pool.AdoptImage(v.Next, v); err != nil {
		return err
	}
	d.opts.Step("adopt: image is a layer")
	return nil
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

// openDisk opens what a volume shows, encrypted if the volume is, for reading. Nothing writes to the volume.
func (d *Driver) openDisk(v *pool.Volume) (*pool.Disk, error) {
	if v.Top == "" {
		image, err := d.pool.Volumes.OpenImage(v.ID, os.O_RDONLY)
		if err != nil {
			return nil, err
		}
		return pool.NewDisk(v.ImageSize(), nil, []*os.File{image})
	}
	chain, files, err := d.openChain(v.Top)
	if err != nil {
		return nil, err
	}
	return pool.NewDisk(v.ImageSize(), chain, files)
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
	lasting, end := d.lasting(ctx)
	defer end()
	err = d.pool.FlattenLayer(lasting, v.Next, chain, files, v.Settings.Thick)
	d.opts.Step("flatten: copied")
	return errors.Join(err, d.conclude(context.WithoutCancel(ctx), v))
}

// startsLayered reports whether a new volume has layers from its beginning.
func (d *Driver) startsLayered(v *pool.Volume, src *source) bool {
	if !d.canLayer(v) {
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
	lasting, end := d.lasting(ctx)
	defer end()
	return d.pool.FlattenVolume(lasting, v.ID, chain, files, v.ImageSize(), v.Settings.Thick)
}

// makeTop makes the upper layer of a new volume, above a layer or above an empty image.
func (d *Driver) makeTop(v *pool.Volume, layer string) error {
	d.layers.RLock()
	defer d.layers.RUnlock()
	if layer == "" {
		layer = pool.NewLayerID(d.opts.Node)
		if err := d.pool.MakeImageLayer(layer, v.Size, v.Settings.Thick); err != nil {
			return err
		}
	}
	return d.pool.MakeStore(v.Top, layer, v.Settings.Thick)
}
