package driver

import (
	"context"
	"fmt"
	"net/http"

	csi "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/cmd/ublk-loop-csi/mounts"
	"github.com/ublk-loop/ublk-loop/cmd/ublk-loop-csi/pool"
)

// NodeExpandVolume implements csi.NodeServer. It grows the image, the device and the file
// system, in this order, while they are in use.
func (d *Driver) NodeExpandVolume(ctx context.Context, req *csi.NodeExpandVolumeRequest) (*csi.NodeExpandVolumeResponse, error) {
	switch {
	case req.GetVolumeId() == "":
		return nil, invalid("volume_id: it is empty")
	case req.GetVolumePath() == "":
		return nil, invalid("volume_path: it is empty")
	}
	unlock, err := d.begin(ctx, req.GetVolumeId())
	if err != nil {
		return nil, err
	}
	defer unlock()
	v, err := d.changing(ctx, req.GetVolumeId())
	if err != nil {
		return nil, err
	}
	if !isAt(v, req.GetVolumePath()) {
		return nil, status.Errorf(codes.NotFound, "volume_path: volume %q is not at %q", v.ID, req.GetVolumePath())
	}
	if err := d.expand(ctx, v, req.GetCapacityRange()); err != nil {
		return nil, failure(err)
	}
	return &csi.NodeExpandVolumeResponse{CapacityBytes: v.Size}, nil
}

// expand grows a volume. The record has the new size before the image has it, so that a
// repeated call, or the next NodeStageVolume, completes what a crash interrupted.
func (d *Driver) expand(ctx context.Context, v *pool.Volume, r *csi.CapacityRange) error {
	size := v.Size
	if r.GetRequiredBytes() > 0 || r.GetLimitBytes() > 0 {
		var err error
		if size, err = chooseSize(r, v.Size, v.Size); err != nil {
			return err
		}
	}
	if size > v.Size {
		if err := d.claimGrowth(v, size); err != nil {
			return err
		}
	}
	d.opts.Step("expand: recorded")
	if v.Stage == nil {
		return nil // the next NodeStageVolume does the rest
	}
	h, err := d.attach(ctx, v, nil)
	if err != nil {
		return err
	}
	defer h.Close()
	d.opts.Step("expand: image grown")
	if err := d.resizeDevice(ctx, v, h); err != nil {
		return err
	}
	d.opts.Step("expand: device grown")
	if v.Stage.Block {
		return nil
	}
	return d.growMounted(ctx, v, h)
}

// claimGrowth checks that there is space, and writes the new size to the record.
func (d *Driver) claimGrowth(v *pool.Volume, size int64) error {
	d.making.Lock()
	defer d.making.Unlock()
	if err := d.checkSpace(v.ID, size, v.Settings.Thick); err != nil {
		return err
	}
	v.Size = size
	return d.pool.Volumes.Write(v.ID, v)
}

// resizeDevice gives the device of a volume the size of the volume. It returns FAILED_PRECONDITION
// if a device in use cannot grow.
func (d *Driver) resizeDevice(ctx context.Context, v *pool.Volume, h *client.Held) error {
	size, err := mounts.DeviceSize(h.Disk())
	if size == v.Size || err != nil {
		return err
	}
	if len(h.Device.Files) > 1 {
		return status.Error(codes.FailedPrecondition, "a volume with layers does not grow in use; it grows when it is staged again")
	}
	err = d.devices.server.resize(ctx, &h.Device, v.Size)
	if client.HasStatus(err, http.StatusNotImplemented) {
		return status.Errorf(codes.FailedPrecondition, "the kernel cannot grow a device in use; the volume grows when it is staged again: %v", err)
	}
	if err != nil {
		return fmt.Errorf("resize %s: %w", h.Device.Device, err)
	}
	return nil
}
