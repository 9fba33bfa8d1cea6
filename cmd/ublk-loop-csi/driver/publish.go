package driver

import (
	"context"
	"errors"
	"fmt"
	"slices"

	csi "github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ublk-loop/ublk-loop/cmd/ublk-loop-csi/mounts"
	"github.com/ublk-loop/ublk-loop/cmd/ublk-loop-csi/pool"
)

// NodePublishVolume implements csi.NodeServer. It makes a staged volume visible to a pod.
func (d *Driver) NodePublishVolume(ctx context.Context, req *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	want, err := parsePublication(req)
	if err != nil {
		return nil, err
	}
	if req.GetVolumeContext()[ephemeralKey] == "true" {
		err = d.publishEphemeral(ctx, req, want)
	} else {
		err = d.publishStaged(ctx, req, want)
	}
	if err != nil {
		return nil, failure(err)
	}
	return &csi.NodePublishVolumeResponse{}, nil
}

func (d *Driver) publishStaged(ctx context.Context, req *csi.NodePublishVolumeRequest, want *pool.Publication) error {
	unlock, err := d.begin(ctx, req.GetVolumeId())
	if err != nil {
		return err
	}
	defer unlock()
	v, err := d.changing(ctx, req.GetVolumeId())
	if err != nil {
		return err
	}
	if err := checkStaged(v, req); err != nil {
		return err
	}
	if err := d.awaken(ctx, v, req.GetSecrets()); err != nil {
		return err
	}
	if err := forgetUnmounted(v); err != nil {
		return err
	}
	known, err := conflicts(v, want)
	if err != nil {
		return err
	}
	if !known {
		v.Publications = append(v.Publications, *want)
		err = d.pool.Volumes.Write(v.ID, v)
	}
	if err == nil {
		err = d.publish(ctx, v, want)
	}
	if err != nil {
		return d.undoPublish(v, want.Target, err)
	}
	return nil
}

// undoPublish forgets a publication that has failed with an error, unless something is mounted at its target. A
// volume with publications can be neither unstaged nor deleted. undoPublish returns the error for Kubernetes.
func (d *Driver) undoPublish(v *pool.Volume, target string, failed error) error {
	t, err := mounts.Read()
	if err == nil && t.At(target) == nil {
		if err := mounts.RemoveTarget(target); err != nil {
			d.opts.Report(err) // it is not ours
		}
		v.Publications = slices.DeleteFunc(v.Publications, func(p pool.Publication) bool { return p.Target == target })
		err = d.pool.Volumes.Write(v.ID, v)
	}
	if err != nil || publicationAt(v, target) >= 0 {
		return unsettled(errors.Join(failure(failed), err))
	}
	return failure(failed)
}

// forgetUnmounted drops the publications of a volume whose mounts others have ended. Nothing uses the volume
// there, so that they must keep it neither from other pods nor from its end.
func forgetUnmounted(v *pool.Volume) error {
	t, err := mounts.Read()
	if err == nil {
		v.Publications = slices.DeleteFunc(v.Publications, func(p pool.Publication) bool { return t.At(p.Target) == nil })
	}
	return err
}

// publicationAt returns the index of the publication at a target, -1 if there is none.
func publicationAt(v *pool.Volume, target string) int {
	return slices.IndexFunc(v.Publications, func(p pool.Publication) bool { return p.Target == target })
}

func parsePublication(req *csi.NodePublishVolumeRequest) (*pool.Publication, error) {
	if err := checkUse(req, "target_path", req.GetTargetPath()); err != nil {
		return nil, err
	}
	c := req.GetVolumeCapability()
	mode := c.GetAccessMode().GetMode()
	return &pool.Publication{
		Target: req.GetTargetPath(), Mode: mode.String(), Block: c.GetBlock() != nil, Options: c.GetMount().GetMountFlags(),
		ReadOnly: req.GetReadonly() || mode == csi.VolumeCapability_AccessMode_SINGLE_NODE_READER_ONLY,
	}, nil
}

// checkStaged returns an error unless a volume is staged as the request says.
func checkStaged(v *pool.Volume, req *csi.NodePublishVolumeRequest) error {
	switch path := req.GetStagingTargetPath(); {
	case path == "":
		return status.Error(codes.FailedPrecondition, "staging_target_path: it is empty")
	case v.Stage == nil:
		return status.Errorf(codes.FailedPrecondition, "staging_target_path: volume %q is not staged", v.ID)
	case v.Stage.Path != path:
		return status.Errorf(codes.FailedPrecondition, "staging_target_path: volume %q is staged at %s", v.ID, v.Stage.Path)
	case v.Stage.Block != (req.GetVolumeCapability().GetBlock() != nil):
		return invalid("volume_capability: the volume is staged with another access type")
	}
	return nil
}

// publish makes a volume visible at a target, after the record says so.
func (d *Driver) publish(ctx context.Context, v *pool.Volume, want *pool.Publication) error {
	d.opts.Step("publish: recorded")
	source, device, err := d.publicationSource(ctx, v)
	if err != nil {
		return err
	}
	if want.Block {
		if err := setReadOnly(v, source); err != nil {
			return err
		}
	}
	done, err := isPublished(want, device)
	if done || err != nil {
		return err
	}
	if err := mounts.MakeTarget(want.Target, want.Block); err != nil {
		return err
	}
	d.opts.Step("publish: target made")
	if err := mounts.Bind(source, want.Target, device, want.ReadOnly); err != nil {
		return unmounted(v, err)
	}
	d.opts.Step("publish: bound")
	return nil
}

// unmounted gives an error the code of CSI if the reason is that others have unmounted a volume.
func unmounted(v *pool.Volume, err error) error {
	if errors.Is(err, mounts.ErrOther) {
		return status.Errorf(codes.FailedPrecondition, "volume %q: %v; stage it again", v.ID, err)
	}
	return err
}

// setReadOnly makes the device of a block volume read-only if all its publications are. The
// flag of a mount does not keep anything from writing to a device.
func setReadOnly(v *pool.Volume, device string) error {
	writable := slices.ContainsFunc(v.Publications, func(p pool.Publication) bool { return !p.ReadOnly })
	return mounts.SetReadOnly(device, !writable)
}

// publicationSource returns the path that targets are bound to: the mounted file system, or
// the node of the device. It checks that they belong to the volume, and returns the number of the device.
func (d *Driver) publicationSource(ctx context.Context, v *pool.Volume) (path, number string, err error) {
	image, err := d.pool.OpenDisk(v, unix.O_PATH)
	if err != nil {
		return "", "", err
	}
	defer func() { _ = image.Close() }()
	device, err := d.devices.of(ctx, image)
	if err != nil {
		return "", "", err
	}
	if device == nil || device.State != live {
		return "", "", status.Errorf(codes.FailedPrecondition, "volume %q has no device; stage it again", v.ID)
	}
	if v.Stage.Block {
		return device.Device, device.MajMin, nil
	}
	t, err := mounts.Read()
	if err != nil {
		return "", "", err
	}
	if m := t.At(v.Stage.Path); m == nil || m.MajMin != device.MajMin {
		return "", "", status.Errorf(codes.FailedPrecondition, "volume %q is not mounted at %s; stage it again", v.ID, v.Stage.Path)
	}
	return v.Stage.Path, device.MajMin, nil
}

// isPublished reports whether the kernel shows a publication of a device. It unmounts a device that is
// not the volume's, or a mount that a crash left without its flags.
func isPublished(want *pool.Publication, device string) (bool, error) {
	t, err := mounts.Read()
	if err != nil {
		return false, err
	}
	m := t.At(want.Target)
	if m == nil {
		return false, nil
	}
	is := m.MajMin
	if want.Block {
		is, err = mounts.Number(want.Target)
	}
	if err != nil {
		return false, err
	}
	if is == device && (m.ReadOnly || !want.ReadOnly) {
		return true, nil
	}
	return false, mounts.Unmount(want.Target)
}

// NodeUnpublishVolume implements csi.NodeServer.
func (d *Driver) NodeUnpublishVolume(ctx context.Context, req *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	if req.GetVolumeId() == "" {
		return nil, invalid("volume_id: it is empty")
	}
	if err := checkPath("target_path", req.GetTargetPath()); err != nil {
		return nil, err
	}
	id := d.recordID(req.GetVolumeId())
	unlock, err := d.begin(ctx, id)
	if err != nil {
		return nil, err
	}
	defer unlock()
	v, err := d.volume(id)
	if status.Code(err) == codes.NotFound {
		return &csi.NodeUnpublishVolumeResponse{}, nil // as an ephemeral volume after the first call
	}
	if err != nil {
		return nil, err
	}
	if v.Settings.Ephemeral { // its file system has no other mount
		err = d.awaken(ctx, v, nil)
	}
	if err == nil {
		err = d.unpublish(v, req.GetTargetPath())
	}
	if err != nil {
		return nil, failure(err)
	}
	if v.Settings.Ephemeral {
		if err := d.endEphemeral(ctx, v); err != nil {
			return nil, failure(err)
		}
	}
	return &csi.NodeUnpublishVolumeResponse{}, nil
}

// unpublish removes a target. The record keeps the publication until the target is gone.
// A target that no record has is not touched, unless it is empty.
func (d *Driver) unpublish(v *pool.Volume, target string) error {
	i := publicationAt(v, target)
	if i >= 0 {
		if err := mounts.Unmount(target); err != nil {
			return err
		}
		d.opts.Step("unpublish: unmounted")
	}
	if err := mounts.RemoveTarget(target); err != nil {
		return fmt.Errorf("target_path: %w", err)
	}
	if i < 0 {
		return nil
	}
	d.opts.Step("unpublish: target removed")
	v.Publications = slices.Delete(v.Publications, i, i+1)
	return d.pool.Volumes.Write(v.ID, v)
}
