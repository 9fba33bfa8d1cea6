package driver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	csi "github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/cmd/ublk-loop-csi/mounts"
	"github.com/ublk-loop/ublk-loop/cmd/ublk-loop-csi/pool"
)

// NodeStageVolume implements csi.NodeServer. It attaches the device, and mounts its file
// system.
func (d *Driver) NodeStageVolume(ctx context.Context, req *csi.NodeStageVolumeRequest) (*csi.NodeStageVolumeResponse, error) {
	want, err := parseStage(req)
	if err != nil {
		return nil, err
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
	if err := stages(v, want); err != nil {
		return nil, err
	}
	if v.Stage == nil {
		v.Stage = want
		if want.Block && v.FS == pool.Formatting {
			v.FS = pool.Blank // pods can write data of their own, over which no file system is made
		}
		err = d.pool.Volumes.Write(v.ID, v)
	}
	d.opts.Step("stage: recorded")
	if err == nil {
		err = d.stage(ctx, v, req.GetSecrets())
	}
	if err != nil {
		return nil, d.undoStage(context.WithoutCancel(ctx), v, err)
	}
	return &csi.NodeStageVolumeResponse{}, nil
}

// undoStage forgets a stage that has failed with an error, unless the file system is mounted or published. It
// returns the error for Kubernetes.
func (d *Driver) undoStage(ctx context.Context, v *pool.Volume, failed error) error {
	t, err := mounts.Read()
	if err == nil && len(v.Publications) == 0 && t.At(v.Stage.Path) == nil {
		err = d.unstage(ctx, v)
	}
	if err != nil || v.Stage != nil {
		return unsettled(errors.Join(failure(failed), err))
	}
	return failure(failed)
}

func parseStage(req *csi.NodeStageVolumeRequest) (*pool.Stage, error) {
	if err := checkUse(req, "staging_target_path", req.GetStagingTargetPath()); err != nil {
		return nil, err
	}
	c := req.GetVolumeCapability()
	return &pool.Stage{
		Path: req.GetStagingTargetPath(), Block: c.GetBlock() != nil,
		FSType: c.GetMount().GetFsType(), Options: c.GetMount().GetMountFlags(),
	}, nil
}

// stages returns an error if a volume is staged in another way.
func stages(v *pool.Volume, want *pool.Stage) error {
	is := v.Stage
	switch {
	case is == nil:
		return nil
	case is.Path != want.Path:
		return status.Errorf(codes.FailedPrecondition, "staging_target_path: volume %q is staged at %s", v.ID, is.Path)
	case is.Block != want.Block, is.FSType != want.FSType, !slices.Equal(is.Options, want.Options):
		return status.Errorf(codes.AlreadyExists, "volume_capability: volume %q is staged with another one", v.ID)
	}
	return nil
}

// stage attaches the device of a volume whose record says that it is staged. It does
// nothing if the kernel shows that this was done.
func (d *Driver) stage(ctx context.Context, v *pool.Volume, secrets map[string]string) error {
	h, err := d.attach(ctx, v, secrets)
	if err != nil {
		return err
	}
	d.opts.Step("stage: attached")
	// A device that is in use since an earlier call, and cannot grow, keeps its size.
	if err := d.resizeDevice(ctx, v, h); err != nil && status.Code(err) != codes.FailedPrecondition {
		h.Close()
		return err
	}
	if v.Stage.Block {
		d.devices.hold(v.ID, h)
		return nil
	}
	defer h.Close()
	t, err := mounts.Read()
	if err != nil {
		return err
	}
	if m := t.At(v.Stage.Path); m != nil && m.MajMin != h.Device.MajMin {
		if err := d.unmountDead(m, v.Stage.Path); err != nil {
			return err
		}
	} else if m != nil {
		if len(v.Publications) > 0 {
			return nil
		}
		return d.growMounted(ctx, v, h) // an earlier call may have ended before that
	}
	if err := d.format(ctx, v, h); err != nil {
		return err
	}
	return d.mount(ctx, v, h)
}

// attach returns the open device of a volume.
func (d *Driver) attach(ctx context.Context, v *pool.Volume, secrets map[string]string) (*client.Held, error) {
	if err := d.prepareDisk(ctx, v); err != nil {
		return nil, err
	}
	cfg := client.Config{DirectIO: v.Settings.DirectIO, OnCrash: "reissue", KeepSpace: v.Settings.Thick}
	if v.Settings.Encrypted {
		return d.attachEncrypted(ctx, v, cfg, secrets)
	}
	if v.Top != "" {
		return d.attachLayers(ctx, v, cfg)
	}
	image, err := d.pool.OpenDisk(v, os.O_RDWR)
	if err != nil {
		return nil, err
	}
	defer func() { _ = image.Close() }()
	return d.devices.attach(ctx, image, func() (*client.Device, error) {
		return d.devices.server.add(ctx, client.AddRequest{File: d.pool.DiskPath(v), Config: cfg}, client.Files{File: image})
	})
}

// unmountDead unmounts a file system of this driver whose device is gone, or has been
// replaced. It refuses to unmount anything else.
func (d *Driver) unmountDead(m *mounts.Mount, path string) error {
	if _, err := os.Stat("/sys/dev/block/" + m.MajMin); err == nil || !errors.Is(err, os.ErrNotExist) {
		return status.Errorf(codes.FailedPrecondition, "staging_target_path: device %s is mounted at %s", m.MajMin, path)
	}
	return mounts.Unmount(path)
}

// format makes the file system of a blank volume. The record says so before and after.
func (d *Driver) format(ctx context.Context, v *pool.Volume, h *client.Held) error {
	want := v.Stage.FSType
	if want == "" {
		want = defaultFSType
		if v.Settings.FSType != "" {
			want = v.Settings.FSType
		}
	}
	if v.FS == pool.Formatted {
		if v.Stage.FSType != "" && v.FSType != want {
			return invalid("volume_capability.mount.fs_type: %q, but the volume has %q", want, v.FSType)
		}
		return nil
	}
	if v.FS == pool.Blank {
		blank, err := d.isBlank(ctx, v, h)
		if err != nil {
			return err
		}
		if !blank {
			return status.Errorf(codes.FailedPrecondition, "volume %q has data but no file system of this driver; no file system is made", v.ID)
		}
	}
	v.FSType, v.FS = want, pool.Formatting
	if err := d.pool.Volumes.Write(v.ID, v); err != nil {
		return err
	}
	d.opts.Step("stage: formatting")
	lasting, end := d.lasting(ctx)
	defer end()
	if err := mounts.Make(lasting, want, h.Device.Device); err != nil {
		return fmt.Errorf("make a file system: %w", err)
	}
	d.opts.Step("stage: formatted")
	v.FS = pool.Formatted
	return d.pool.Volumes.Write(v.ID, v)
}

// mount mounts the file system of a volume, and gives it the size of the device.
func (d *Driver) mount(ctx context.Context, v *pool.Volume, h *client.Held) error {
	options := v.Stage.Options
	if v.FSType == "xfs" && !slices.Contains(options, "nouuid") {
		options = append(slices.Clone(options), "nouuid") // a clone has the UUID of its source
	}
	if err := mounts.MakeTarget(v.Stage.Path, false); err != nil {
		return err
	}
	if err := mounts.FileSystem(ctx, h.Device.Device, v.Stage.Path, v.FSType, options); err != nil {
		return err
	}
	d.opts.Step("stage: mounted")
	if err := d.growMounted(ctx, v, h); err != nil {
		return errors.Join(err, mounts.Unmount(v.Stage.Path))
	}
	return nil
}

// growMounted gives a mounted file system the size of its device. One that is mounted read-only gets it when it is staged for
// writes.
func (d *Driver) growMounted(ctx context.Context, v *pool.Volume, h *client.Held) error {
	if mounts.IsReadOnly(v.Stage.Options) {
		return nil
	}
	if err := mounts.Grow(ctx, v.FSType, h.Device.Device, v.Stage.Path); err != nil {
		return fmt.Errorf("grow the file system: %w", err)
	}
	return nil
}

// NodeUnstageVolume implements csi.NodeServer. It unmounts the file system, and removes the
// device.
func (d *Driver) NodeUnstageVolume(ctx context.Context, req *csi.NodeUnstageVolumeRequest) (*csi.NodeUnstageVolumeResponse, error) {
	if req.GetVolumeId() == "" {
		return nil, invalid("volume_id: it is empty")
	}
	if err := checkPath("staging_target_path", req.GetStagingTargetPath()); err != nil {
		return nil, err
	}
	unlock, err := d.begin(ctx, req.GetVolumeId())
	if err != nil {
		return nil, err
	}
	defer unlock()
	v, err := d.changing(ctx, req.GetVolumeId())
	if status.Code(err) == codes.NotFound {
		return &csi.NodeUnstageVolumeResponse{}, nil // as after a deletion
	}
	if err != nil {
		return nil, err
	}
	if v.Stage == nil || v.Stage.Path != req.GetStagingTargetPath() {
		return &csi.NodeUnstageVolumeResponse{}, nil
	}
	if err := forgetUnmounted(v); err != nil {
		return nil, failure(err)
	}
	if len(v.Publications) > 0 {
		return nil, status.Errorf(codes.FailedPrecondition, "volume_id: volume %q is published at %s", v.ID, v.Publications[0].Target)
	}
	if err := d.unstage(ctx, v); err != nil {
		return nil, failure(err)
	}
	return &csi.NodeUnstageVolumeResponse{}, nil
}

// unstage ends the use of a volume. The record keeps its stage until all is undone.
func (d *Driver) unstage(ctx context.Context, v *pool.Volume) error {
	if err := d.awaken(ctx, v, nil); err != nil {
		return err
	}
	if !v.Stage.Block {
		if err := mounts.Unmount(v.Stage.Path); err != nil {
			return err
		}
	}
	d.opts.Step("unstage: unmounted")
	if err := d.detach(ctx, v); err != nil {
		return err
	}
	d.keys.drop(v.ID)
	d.opts.Step("unstage: detached")
	d.wakeMerger() // the device may have kept merged layers
	v.Stage = nil
	return d.pool.Volumes.Write(v.ID, v)
}

// detach removes the device of a volume, if there is one.
func (d *Driver) detach(ctx context.Context, v *pool.Volume) error {
	d.devices.release(v.ID)
	image, err := d.pool.OpenDisk(v, unix.O_PATH)
	if err != nil {
		return err
	}
	defer func() { _ = image.Close() }()
	return d.devices.remove(ctx, image)
}
