package driver

import (
	"context"
	"errors"
	"os"

	csi "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ublk-loop/ublk-loop/cmd/ublk-loop-csi/pool"
)

// DeleteVolume implements csi.ControllerServer. A volume that does not exist counts as
// deleted.
func (d *Driver) DeleteVolume(ctx context.Context, req *csi.DeleteVolumeRequest) (*csi.DeleteVolumeResponse, error) {
	id := req.GetVolumeId()
	if id == "" {
		return nil, invalid("volume_id: it is empty")
	}
	unlock, err := d.begin(ctx, id)
	if err != nil {
		return nil, err
	}
	defer unlock()
	v, err := d.pool.Volumes.Read(id)
	if errors.Is(err, os.ErrNotExist) {
		return &csi.DeleteVolumeResponse{}, nil
	}
	if err == nil && (v.Stage != nil || len(v.Publications) > 0) {
		err = status.Errorf(codes.FailedPrecondition, "volume_id: volume %q is in use on node %s", id, d.opts.Node)
	}
	if err == nil {
		err = d.discard(v)
	}
	if err != nil {
		return nil, failure(err)
	}
	return &csi.DeleteVolumeResponse{}, nil
}

// discard deletes a volume without a device. The record says so before the image goes.
func (d *Driver) discard(v *pool.Volume) error {
	v.State = pool.Deleting
	if err := d.pool.Volumes.Write(v.ID, v); err != nil {
		return err
	}
	d.opts.Step("delete: recorded")
	if err := d.pool.Volumes.Remove(v.ID); err != nil {
		return err
	}
	d.opts.Step("delete: removed")
	d.collect()
	return nil
}

// ValidateVolumeCapabilities implements csi.ControllerServer.
func (d *Driver) ValidateVolumeCapabilities(ctx context.Context, req *csi.ValidateVolumeCapabilitiesRequest) (*csi.ValidateVolumeCapabilitiesResponse, error) {
	switch {
	case req.GetVolumeId() == "":
		return nil, invalid("volume_id: it is empty")
	case len(req.GetVolumeCapabilities()) == 0:
		return nil, invalid("volume_capabilities: it is empty")
	}
	unlock, err := d.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	v, err := d.volume(req.GetVolumeId())
	if err != nil {
		return nil, err
	}
	if err := confirm(v, req); err != nil {
		return &csi.ValidateVolumeCapabilitiesResponse{Message: status.Convert(err).Message()}, nil
	}
	return &csi.ValidateVolumeCapabilitiesResponse{Confirmed: &csi.ValidateVolumeCapabilitiesResponse_Confirmed{
		VolumeContext: req.GetVolumeContext(), VolumeCapabilities: req.GetVolumeCapabilities(), Parameters: req.GetParameters(),
	}}, nil
}

// confirm returns why a volume lacks what a request asks for.
func confirm(v *pool.Volume, req *csi.ValidateVolumeCapabilitiesRequest) error {
	if len(req.GetVolumeContext()) > 0 {
		return invalid("volume_context: the volume has none")
	}
	for _, c := range req.GetVolumeCapabilities() {
		if err := checkCapability("volume_capabilities", c); err != nil {
			return err
		}
		if fsType := c.GetMount().GetFsType(); fsType != "" && v.FS != pool.Blank && fsType != v.FSType {
			return invalid("volume_capabilities.mount.fs_type: the volume has %q", v.FSType)
		}
	}
	return nil
}
