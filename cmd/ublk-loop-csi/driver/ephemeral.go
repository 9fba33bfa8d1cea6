package driver

import (
	"context"
	"errors"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"

	csi "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ublk-loop/ublk-loop/cmd/ublk-loop-csi/mounts"
	"github.com/ublk-loop/ublk-loop/cmd/ublk-loop-csi/pool"
)

// These are the keys in the volume context of an ephemeral volume. Users of pods choose the
// last two, so nothing of the node can be named by them.
const (
	ephemeralKey = kubernetesPrefix + "ephemeral"
	sizeKey      = "size"
	fsTypeKey    = "fsType"
)

// recordID returns the id of the record of a volume. Kubernetes chooses the ids of ephemeral
// volumes itself.
func (d *Driver) recordID(id string) string {
	if pool.IsID(pool.Volumes, id) {
		return id
	}
	return pool.ID(pool.Volumes, d.opts.Node, "ephemeral\x00"+id)
}

// publishEphemeral makes a volume for one pod, and mounts it at its target. Kubernetes may
// never repeat a failed call, so a failure undoes everything.
func (d *Driver) publishEphemeral(ctx context.Context, req *csi.NodePublishVolumeRequest, want *pool.Publication) error {
	c, err := d.parseEphemeral(req)
	if err != nil {
		return err
	}
	unlock, err := d.begin(ctx, c.id)
	if err != nil {
		return err
	}
	defer unlock()
	v, err := d.findEphemeral(c, want)
	if err != nil {
		return err
	}
	inUse := false
	if v == nil {
		if v, err = d.create(ctx, c); v == nil {
			return err
		}
	} else if inUse, err = isMounted(v, want.Target); err != nil {
		return unsettled(err)
	}
	if err == nil {
		err = d.mountEphemeral(ctx, v, want)
	}
	switch {
	case err == nil:
		return nil
	case inUse:
		return unsettled(err)
	}
	if undo := d.undoEphemeral(context.WithoutCancel(ctx), v, want.Target); undo != nil {
		return unsettled(errors.Join(failure(err), undo))
	}
	return err
}

// findEphemeral returns the volume that an earlier call has made, nil if there is none. The publication must
// be that of the earlier call.
func (d *Driver) findEphemeral(c *creation, want *pool.Publication) (*pool.Volume, error) {
	v, err := d.pool.Volumes.Read(c.id)
	switch {
	case errors.Is(err, os.ErrNotExist), err == nil && v.State != pool.Ready:
		return nil, nil
	case err != nil:
		return nil, err
	}
	if err := c.matches(v); err != nil {
		return nil, err
	}
	_, err = conflicts(v, want)
	return v, err
}

// isMounted reports whether an earlier call has mounted an ephemeral volume. A pod can use it, so
// that a failure of a repeated call undoes nothing.
func isMounted(v *pool.Volume, target string) (bool, error) {
	if v.Stage == nil {
		return false, nil
	}
	t, err := mounts.Read()
	return err == nil && t.At(target) != nil, err
}

// parseEphemeral returns the volume that a request asks for.
func (d *Driver) parseEphemeral(req *csi.NodePublishVolumeRequest) (*creation, error) {
	settings := pool.Settings{DirectIO: "auto", FSType: fsTypeOf(req.GetVolumeCapability()), Ephemeral: true}
	if settings.FSType == "" {
		return nil, invalid("volume_capability: an ephemeral volume has a file system")
	}
	c := &creation{name: req.GetVolumeId(), id: d.recordID(req.GetVolumeId()), capacity: &csi.CapacityRange{}}
	for key, value := range req.GetVolumeContext() {
		switch {
		case strings.HasPrefix(key, kubernetesPrefix):
		case key == sizeKey:
			n, err := parseQuantity(value)
			if err != nil {
				return nil, err
			}
			c.capacity.RequiredBytes = n
		case key == fsTypeKey:
			if err := checkFSType("volume_context."+fsTypeKey, value); err != nil {
				return nil, err
			}
			if value == "" {
				value = defaultFSType
			}
			settings.FSType = value
		default:
			return nil, invalid("volume_context: %q is unknown; an ephemeral volume has %s and %s", key, sizeKey, fsTypeKey)
		}
	}
	c.settings = settings
	return c, nil
}

// parseQuantity parses a size as Kubernetes writes it: 1Gi, 500M or a number of bytes.
func parseQuantity(text string) (int64, error) {
	digits := len(text) - len(strings.TrimLeft(text, "0123456789"))
	factor, ok := map[string]int64{
		"": 1, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40,
	}[text[digits:]]
	n, err := strconv.ParseInt(text[:digits], 10, 64)
	if !ok || err != nil || n == 0 || n > math.MaxInt64/factor {
		return 0, invalid("volume_context.%s: %q is not a size such as 1Gi", sizeKey, text)
	}
	return n * factor, nil
}

// mountEphemeral mounts a volume at the target itself. The record can have the stage alone, if the end of an
// earlier use has failed.
func (d *Driver) mountEphemeral(ctx context.Context, v *pool.Volume, want *pool.Publication) error {
	if v.Stage != nil && v.Stage.Path != want.Target {
		return status.Errorf(codes.FailedPrecondition, "target_path: the volume is at %s", v.Stage.Path)
	}
	if len(v.Publications) == 0 {
		options := slices.Clone(want.Options)
		if want.ReadOnly {
			options = append(options, "ro")
		}
		v.Stage = &pool.Stage{Path: want.Target, FSType: v.Settings.FSType, Options: options}
		v.Publications = []pool.Publication{*want}
		if err := d.pool.Volumes.Write(v.ID, v); err != nil {
			return err
		}
	}
	return d.stage(ctx, v, nil)
}

// undoEphemeral deletes a volume that could not be mounted. A target with files of others
// stays.
func (d *Driver) undoEphemeral(ctx context.Context, v *pool.Volume, target string) error {
	if err := d.awaken(ctx, v, nil); err != nil {
		return err
	}
	if err := mounts.Unmount(target); err != nil {
		return err
	}
	if err := mounts.RemoveTarget(target); err != nil {
		d.opts.Report(err)
	}
	v.Publications = nil
	return d.endEphemeral(ctx, v)
}

// endEphemeral deletes a volume that lives as long as its pod.
func (d *Driver) endEphemeral(ctx context.Context, v *pool.Volume) error {
	if len(v.Publications) > 0 {
		return nil
	}
	if v.Stage != nil {
		if err := d.unstage(ctx, v); err != nil {
			return err
		}
	}
	return d.discard(v)
}
