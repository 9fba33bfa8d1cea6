package driver

import (
	"context"
	"errors"
	"os"

	csi "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ublk-loop/ublk-loop/cmd/ublk-loop-csi/mounts"
	"github.com/ublk-loop/ublk-loop/cmd/ublk-loop-csi/pool"
)

// creation is a request for a volume.
type creation struct {
	id, name string
	capacity *csi.CapacityRange
	settings pool.Settings
}

// CreateVolume implements csi.ControllerServer.
func (d *Driver) CreateVolume(ctx context.Context, req *csi.CreateVolumeRequest) (*csi.CreateVolumeResponse, error) {
	c, err := d.parseCreation(req)
	if err != nil {
		return nil, err
	}
	ids := []string{c.id}
	// A volume that is its own source is locked once, and then refused: it does not exist, or was made of something else.
	if source := c.settings.SourceVolume + c.settings.SourceSnapshot; source != "" && source != c.id {
		ids = append(ids, source)
	}
	unlock, err := d.begin(ctx, ids...)
	if err != nil {
		return nil, err
	}
	defer unlock()
	v, err := d.pool.Volumes.Read(c.id)
	switch {
	case err == nil && v.State == pool.Ready:
		err = c.matches(v)
	case err == nil || errors.Is(err, os.ErrNotExist):
		v, err = d.create(ctx, c)
	}
	if err != nil {
		return nil, failure(err)
	}
	return &csi.CreateVolumeResponse{Volume: d.described(v)}, nil
}

func (d *Driver) parseCreation(req *csi.CreateVolumeRequest) (*creation, error) {
	if err := checkName(req.GetName()); err != nil {
		return nil, err
	}
	if len(req.GetVolumeCapabilities()) == 0 {
		return nil, invalid("volume_capabilities: it is empty")
	}
	if len(req.GetMutableParameters()) > 0 {
		return nil, invalid("mutable_parameters: they are not supported")
	}
	settings, err := parseParameters(req.GetParameters())
	if err != nil {
		return nil, err
	}
	for _, c := range req.GetVolumeCapabilities() {
		if err := checkCapability("volume_capabilities", c); err != nil {
			return nil, err
		}
		if settings.FSType == "" {
			settings.FSType = fsTypeOf(c)
		}
	}
	if settings.SourceVolume, settings.SourceSnapshot, err = d.parseSource(req.GetVolumeContentSource()); err != nil {
		return nil, err
	}
	if err := d.checkTopology(req.GetAccessibilityRequirements()); err != nil {
		return nil, err
	}
	id := pool.ID(pool.Volumes, d.opts.Node, req.GetName())
	return &creation{id: id, name: req.GetName(), capacity: req.GetCapacityRange(), settings: settings}, nil
}

// checkTopology refuses a volume that must not be on this node. With RESOURCE_EXHAUSTED
// Kubernetes tries another node.
func (d *Driver) checkTopology(r *csi.TopologyRequirement) error {
	if len(r.GetRequisite()) == 0 {
		return nil
	}
	for _, t := range r.GetRequisite() {
		if d.isHere(t) {
			return nil
		}
	}
	return status.Errorf(codes.ResourceExhausted, "accessibility_requirements: they exclude node %s", d.opts.Node)
}

// parseSource returns the ids of the source of a volume's content, of which at most one is
// not empty.
func (d *Driver) parseSource(s *csi.VolumeContentSource) (volume, snapshot string, err error) {
	kind, id := pool.Volumes, s.GetVolume().GetVolumeId()
	switch {
	case s == nil:
		return "", "", nil
	case s.GetSnapshot() != nil:
		kind, id = pool.Snapshots, s.GetSnapshot().GetSnapshotId()
	case s.GetVolume() == nil:
		return "", "", invalid("volume_content_source: neither snapshot nor volume is set")
	}
	switch {
	case id == "":
		return "", "", invalid("volume_content_source: the id is empty")
	case !pool.IsID(kind, id):
		return "", "", status.Errorf(codes.NotFound, "volume_content_source: %q does not exist", id)
	case !pool.IsOf(kind, id, d.opts.Node):
		return "", "", status.Errorf(codes.ResourceExhausted, "volume_content_source: %q is on another node than %s", id, d.opts.Node)
	case kind == pool.Snapshots:
		return "", id, nil
	}
	return id, "", nil
}

// matches returns an error unless an existing volume is what the request asks for. A volume
// that has grown since matches the request that made it.
func (c *creation) matches(v *pool.Volume) error {
	switch asked := c.asked(); {
	case v.Asked != asked:
		return status.Errorf(codes.AlreadyExists, "name: volume %q exists with another capacity_range", c.name)
	case v.Settings != c.settings:
		return status.Errorf(codes.AlreadyExists, "name: volume %q exists with other parameters, volume_capabilities or volume_content_source", c.name)
	}
	return nil
}

func (c *creation) asked() pool.Range {
	return pool.Range{Required: c.capacity.GetRequiredBytes(), Limit: c.capacity.GetLimitBytes()}
}

// create makes a volume. The record says so before the image exists.
func (d *Driver) create(ctx context.Context, c *creation) (*pool.Volume, error) {
	src, err := d.openSource(ctx, &c.settings)
	if err != nil {
		return nil, err
	}
	defer src.close()
	standard := src.size
	if standard == 0 {
		standard = defaultSize
	}
	size, err := chooseSize(c.capacity, max(mounts.MinBytes(c.settings.FSType), src.size), standard)
	if err != nil {
		return nil, err
	}
	if limit := d.opts.EphemeralLimit; c.settings.Ephemeral && limit > 0 && size > limit {
		return nil, invalid("volume_context.%s: an ephemeral volume of %d bytes is larger than the driver allows, which is %d", sizeKey, size, limit)
	}
	if required := c.capacity.GetRequiredBytes(); required > 0 && required < src.size {
		return nil, status.Errorf(codes.OutOfRange, "capacity_range.required_bytes: %d is less than the %d of the source", required, src.size)
	}
	v := &pool.Volume{ID: c.id, Name: c.name, State: pool.Making, Size: size, Asked: c.asked(), Settings: c.settings}
	v.FSType, v.FS, v.LUKS = src.fsType, src.fs, src.luks
	if d.startsLayered(v, src) {
		v.Top = pool.NewLayerID(d.opts.Node)
	}
	if err := d.claim(v); err != nil {
		return nil, err
	}
	d.opts.Step("create: recorded")
	if err := d.fill(ctx, v, src); err != nil {
		err = errors.Join(failure(err), d.pool.Volumes.Remove(v.ID))
		d.collect()
		return nil, err
	}
	d.opts.Step("create: filled")
	v.State = pool.Ready
	return v, d.pool.Volumes.Write(v.ID, v)
}

// claim checks that there is space for a volume, and writes its record. The record counts
// for the space of the next volume.
func (d *Driver) claim(v *pool.Volume) error {
	d.making.Lock()
	defer d.making.Unlock()
	if err := d.checkSpace(v.ID, v.Size, v.Settings.Thick); err != nil {
		return err
	}
	return d.pool.Volumes.Write(v.ID, v)
}

// fill makes the image of a volume.
func (d *Driver) fill(ctx context.Context, v *pool.Volume, src *source) error {
	size := v.ImageSize()
	lasting, end := d.lasting(ctx)
	defer end()
	switch {
	case v.Top != "" || src.layer != "" || src.volume != nil && src.volume.Top != "":
		return d.fillFromLayers(ctx, v, src)
	case src.volume != nil:
		return d.cut(ctx, src.volume, func(image *os.File, share bool) error {
			return d.pool.Volumes.Copy(lasting, v.ID, image, size, v.Settings.Thick, share)
		})
	case src.image != nil:
		return d.pool.Volumes.Copy(lasting, v.ID, src.image, size, v.Settings.Thick, false)
	}
	return d.pool.Volumes.Create(v.ID, size, v.Settings.Thick)
}

// described returns the description of a volume for CSI.
func (d *Driver) described(v *pool.Volume) *csi.Volume {
	described := &csi.Volume{VolumeId: v.ID, CapacityBytes: v.Size, AccessibleTopology: []*csi.Topology{d.topology()}}
	switch {
	case v.Settings.SourceSnapshot != "":
		described.ContentSource = &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Snapshot{
			Snapshot: &csi.VolumeContentSource_SnapshotSource{SnapshotId: v.Settings.SourceSnapshot},
		}}
	case v.Settings.SourceVolume != "":
		described.ContentSource = &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Volume{
			Volume: &csi.VolumeContentSource_VolumeSource{VolumeId: v.Settings.SourceVolume},
		}}
	}
	return described
}
