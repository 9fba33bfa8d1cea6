package driver

import (
	"context"
	"errors"
	"slices"

	csi "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/ublk-loop/ublk-loop/cmd/ublk-loop-csi/pool"
	"github.com/ublk-loop/ublk-loop/internal/filecopy"
)

// usage is what the objects of the pool take.
type usage struct {
	promised  int64 // sizes of the volumes, and blocks of what never grows
	allocated int64 // blocks of all images; shared blocks count in each
	doubled   int64 // part of allocated that counts more than once
	own       int64 // blocks of the excepted volume that stay when it grows
}

// Usage is what the volumes and snapshots of the node take, in numbers and bytes.
type Usage struct {
	Volumes, Snapshots, Layers int
	PoolSize, PoolFree         int64 // of the pool's file system
	Allocated                  int64 // bytes of all images; shared blocks count in each
	Promised                   int64 // sizes of the volumes, and bytes of snapshots and layers
	Available                  int64 // largest size of a new thin volume
}

// Usage returns what volumes and snapshots take.
func (d *Driver) Usage() (u Usage, err error) {
	for _, list := range []struct {
		ids func() ([]string, error)
		n   *int
	}{{d.pool.Volumes.IDs, &u.Volumes}, {d.pool.Snapshots.IDs, &u.Snapshots}, {d.pool.Layers.IDs, &u.Layers}} {
		ids, err := list.ids()
		if err != nil {
			return u, err
		}
		*list.n = len(ids)
	}
	space, err := d.pool.Space()
	if err != nil {
		return u, err
	}
	all, err := d.usage("")
	u.PoolSize, u.PoolFree, u.Allocated, u.Promised = space.Total, space.Free, all.allocated, all.promised
	u.Available = available(space, all, d.opts.Reserve, d.opts.Overcommit)
	return u, err
}

// usage adds up what the objects take, except for one.
func (d *Driver) usage(except string) (usage, error) {
	var u usage
	volumes, damaged, err := d.pool.Volumes.All()
	if err != nil {
		return u, err
	}
	if len(damaged) > 0 { // their sizes are unknown, so a new volume could take their space
		return u, status.Errorf(codes.Internal, "no space can be given away: %v", errors.Join(damaged...))
	}
	tops := map[string]bool{}
	for _, v := range volumes {
		tops[v.Top] = true
		n, err := d.pool.Volumes.Allocated(v.ID)
		if err != nil {
			return u, err
		}
		u.allocated += n
		if v.ID != except {
			u.promised += v.ImageSize()
		} else if u.own, err = d.ownBlocks(v); err != nil {
			return u, err
		}
	}
	if err := d.addLayers(&u, tops); err != nil {
		return u, err
	}
	snapshots, err := d.pool.Snapshots.IDs()
	if err == nil {
		err = d.addSnapshots(&u, snapshots)
	}
	if err == nil {
		u.doubled, err = d.doubled(volumes, snapshots)
	}
	return u, err
}

// addSnapshots adds what the images of snapshots take.
func (d *Driver) addSnapshots(u *usage, ids []string) error {
	for _, id := range ids {
		n, err := d.pool.Snapshots.Allocated(id)
		if err != nil {
			return err
		}
		u.allocated += n
		u.promised += n
	}
	return nil
}

// doubled returns how many bytes the images of volumes and snapshots share.
func (d *Driver) doubled(volumes []*pool.Volume, snapshots []string) (int64, error) {
	isCopy := func(v *pool.Volume) bool { return v.Settings.SourceVolume+v.Settings.SourceSnapshot != "" }
	if !d.pool.Shares || len(snapshots) == 0 && !slices.ContainsFunc(volumes, isCopy) {
		return 0, nil
	}
	var doubles filecopy.Doubles
	for _, v := range volumes {
		if err := d.pool.Volumes.EachShared(v.ID, doubles.Add); err != nil {
			return 0, err
		}
	}
	for _, id := range snapshots {
		if err := d.pool.Snapshots.EachShared(id, doubles.Add); err != nil {
			return 0, err
		}
	}
	return doubles.Bytes(), nil
}

// ownBlocks returns the bytes of a volume's image that stay when the volume grows. A volume with a store
// gets a new image for that.
func (d *Driver) ownBlocks(v *pool.Volume) (int64, error) {
	if v.Top != "" {
		if top, err := d.pool.Layers.Read(v.Top); err != nil || top.IsStore() {
			return 0, err
		}
	}
	return d.pool.Allocated(v)
}

// addLayers adds what layers take. Layers that volumes write to have their promises already.
func (d *Driver) addLayers(u *usage, tops map[string]bool) error {
	ids, err := d.pool.Layers.IDs()
	for _, id := range ids {
		n, err := d.pool.Layers.Allocated(id)
		if err != nil {
			return err
		}
		u.allocated += n
		if !tops[id] {
			u.promised += n
		}
	}
	return err
}

// available returns the largest size that a volume can have, a new one or, with an id, one that grows.
func (d *Driver) available(except string, thick bool) (int64, error) {
	space, err := d.pool.Space()
	if err != nil {
		return 0, err
	}
	u, err := d.usage(except)
	if err != nil {
		return 0, err
	}
	factor := d.opts.Overcommit
	if thick {
		factor = 1
	}
	return available(space, u, d.opts.Reserve, factor), nil
}

// available returns what is left of the space that belongs to the pool: everything except
// the reserve and the files of others.
func available(space pool.Space, u usage, reserve int64, factor float64) int64 {
	others := max(space.Total-space.Free-(u.allocated-u.doubled), 0)
	own := max(space.Total-others-reserve, 0)
	left := int64(float64(own)*factor) - u.promised
	if factor == 1 {
		left = min(left, space.Free-reserve+u.own)
	}
	return max(left, 0) / sizeUnit * sizeUnit
}

// checkSpace refuses a volume that the pool has no space for. With RESOURCE_EXHAUSTED
// Kubernetes tries another node.
func (d *Driver) checkSpace(id string, size int64, thick bool) error {
	left, err := d.available(id, thick)
	if err == nil && size > left {
		err = status.Errorf(codes.ResourceExhausted, "capacity_range.required_bytes: the pool of node %s has space for %d bytes, not for %d", d.opts.Node, left, size)
	}
	return err
}

// GetCapacity implements csi.ControllerServer.
func (d *Driver) GetCapacity(ctx context.Context, req *csi.GetCapacityRequest) (*csi.GetCapacityResponse, error) {
	settings, err := parseParameters(req.GetParameters())
	if err != nil {
		return nil, err
	}
	unlock, err := d.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	var left int64
	if d.supportsAll(req.GetVolumeCapabilities()) && d.isHere(req.GetAccessibleTopology()) {
		if left, err = d.available("", settings.Thick); err != nil {
			return nil, failure(err)
		}
		if settings.Encrypted {
			left = max(left-pool.HeaderBytes, 0)
		}
	}
	return &csi.GetCapacityResponse{AvailableCapacity: left, MaximumVolumeSize: wrapperspb.Int64(left)}, nil
}

func (d *Driver) supportsAll(list []*csi.VolumeCapability) bool {
	for _, c := range list {
		if checkCapability("volume_capabilities", c) != nil {
			return false
		}
	}
	return true
}
