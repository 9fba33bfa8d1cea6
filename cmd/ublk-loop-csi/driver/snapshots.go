package driver

import (
	"context"
	"errors"
	"os"
	"strings"
	"time"

	csi "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ublk-loop/ublk-loop/cmd/ublk-loop-csi/pool"
)

// CreateSnapshot implements csi.ControllerServer. The snapshot is ready when the call
// returns, and does not depend on its volume.
func (d *Driver) CreateSnapshot(ctx context.Context, req *csi.CreateSnapshotRequest) (*csi.CreateSnapshotResponse, error) {
	if err := checkName(req.GetName()); err != nil {
		return nil, err
	}
	source := req.GetSourceVolumeId()
	if source == "" {
		return nil, invalid("source_volume_id: it is empty")
	}
	for name := range req.GetParameters() {
		if !strings.HasPrefix(name, kubernetesPrefix) {
			return nil, invalid("parameters: %q is unknown", name)
		}
	}
	id := pool.ID(pool.Snapshots, d.opts.Node, req.GetName())
	unlock, err := d.begin(ctx, id, source)
	if err != nil {
		return nil, err
	}
	defer unlock()
	s, err := d.pool.Snapshots.Read(id)
	switch {
	case err == nil && s.State == pool.Ready:
		if s.Source != source {
			err = status.Errorf(codes.AlreadyExists, "name: snapshot %q exists with source_volume_id %q", req.GetName(), s.Source)
		}
	case err == nil || errors.Is(err, os.ErrNotExist):
		s, err = d.snap(ctx, id, req.GetName(), source)
	}
	if err != nil {
		return nil, failure(err)
	}
	return &csi.CreateSnapshotResponse{Snapshot: describedSnapshot(s)}, nil
}

// snap makes a snapshot. The record says so before the image exists and before the file
// system of the volume is frozen.
func (d *Driver) snap(ctx context.Context, id, name, source string) (*pool.Snapshot, error) {
	v, err := d.changing(ctx, source)
	if err != nil {
		return nil, inField(err, "source_volume_id")
	}
	s := &pool.Snapshot{
		ID: id, Name: name, State: pool.Making, Source: source, Size: v.Size, Made: time.Now().UTC(),
		Encrypted: v.Settings.Encrypted, FSType: v.FSType, FS: v.FS, LUKS: v.LUKS,
	}
	if d.divides(v) {
		s.Layer, err = d.prepareDivision(ctx, v)
	} else if v.Settings.Thick && d.pool.Shares {
		d.making.Lock() // until the snapshot has its blocks
		defer d.making.Unlock()
		err = d.checkSnapshotSpace(v)
	}
	if err != nil {
		return nil, err
	}
	if err := d.pool.Snapshots.Write(id, s); err != nil {
		return nil, err
	}
	d.opts.Step("snapshot: recorded")
	if s.Layer != "" {
		err = d.divide(ctx, v, s.Layer)
	} else {
		err = d.cut(ctx, v, func(image *os.File, share bool) error {
			ctx, end := d.lasting(ctx)
			defer end()
			return d.pool.Snapshots.Copy(ctx, id, image, 0, false, share)
		})
	}
	if err != nil {
		err = errors.Join(failure(err), d.pool.Snapshots.Remove(id))
		d.collect()
		return nil, err
	}
	d.opts.Step("snapshot: cut")
	s.State = pool.Ready
	return s, d.pool.Snapshots.Write(id, s)
}

// checkSnapshotSpace refuses a snapshot of a thick volume if the pool has no space for a second copy of its
// blocks. Volume and snapshot share them until the volume writes to them.
func (d *Driver) checkSnapshotSpace(v *pool.Volume) error {
	need, err := d.pool.Allocated(v)
	if err != nil {
		return err
	}
	return d.checkChanges("snapshot", v, need)
}

// DeleteSnapshot implements csi.ControllerServer. A snapshot that does not exist counts as
// deleted.
func (d *Driver) DeleteSnapshot(ctx context.Context, req *csi.DeleteSnapshotRequest) (*csi.DeleteSnapshotResponse, error) {
	id := req.GetSnapshotId()
	if id == "" {
		return nil, invalid("snapshot_id: it is empty")
	}
	unlock, err := d.begin(ctx, id)
	if err != nil {
		return nil, err
	}
	defer unlock()
	s, err := d.pool.Snapshots.Read(id)
	if errors.Is(err, os.ErrNotExist) {
		return &csi.DeleteSnapshotResponse{}, nil
	}
	if err == nil {
		err = d.discardSnapshot(s)
	}
	if err != nil {
		return nil, failure(err)
	}
	return &csi.DeleteSnapshotResponse{}, nil
}

func (d *Driver) discardSnapshot(s *pool.Snapshot) error {
	s.State = pool.Deleting
	if err := d.pool.Snapshots.Write(s.ID, s); err != nil {
		return err
	}
	d.opts.Step("delete snapshot: recorded")
	if err := d.pool.Snapshots.Remove(s.ID); err != nil {
		return err
	}
	d.opts.Step("delete snapshot: removed")
	d.collect()
	return nil
}

func describedSnapshot(s *pool.Snapshot) *csi.Snapshot {
	return &csi.Snapshot{
		SnapshotId: s.ID, SourceVolumeId: s.Source, SizeBytes: s.Size,
		CreationTime: timestamppb.New(s.Made), ReadyToUse: true,
	}
}
