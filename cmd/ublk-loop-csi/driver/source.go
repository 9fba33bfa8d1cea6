package driver

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/cmd/ublk-loop-csi/mounts"
	"github.com/ublk-loop/ublk-loop/cmd/ublk-loop-csi/pool"
	"github.com/ublk-loop/ublk-loop/internal/await"
)

// source is what a new volume is a copy of. The zero value stands for an empty volume.
type source struct {
	volume *pool.Volume // a volume, which may be in use
	image  *os.File     // the image of a snapshot
	layer  string       // the layer that a snapshot shows
	size   int64
	fsType string
	fs     pool.Format
	luks   pool.Format
}

func (s *source) close() {
	if s.image != nil {
		_ = s.image.Close()
	}
}

// openSource finds the source of a volume with the given settings.
func (d *Driver) openSource(ctx context.Context, want *pool.Settings) (*source, error) {
	src, encrypted := &source{}, false
	switch {
	case want.SourceSnapshot != "":
		s, err := d.snapshot(want.SourceSnapshot)
		if err != nil {
			return nil, inField(err, "volume_content_source")
		}
		encrypted = s.Encrypted
		*src = source{size: s.Size, fsType: s.FSType, fs: s.FS, luks: s.LUKS, layer: s.Layer}
		if s.Layer != "" {
			break
		}
		if src.image, err = d.pool.Snapshots.OpenImage(s.ID, os.O_RDONLY); err != nil {
			return nil, err
		}
	case want.SourceVolume != "":
		v, err := d.changing(ctx, want.SourceVolume)
		if err != nil {
			return nil, inField(err, "volume_content_source")
		}
		encrypted = v.Settings.Encrypted
		*src = source{volume: v, size: v.Size, fsType: v.FSType, fs: v.FS, luks: v.LUKS}
	default:
		return src, nil
	}
	if err := src.suits(want, encrypted); err != nil {
		src.close()
		return nil, err
	}
	return src, nil
}

// suits returns an error if a copy of the source cannot have the given settings.
func (s *source) suits(want *pool.Settings, encrypted bool) error {
	switch {
	case want.Encrypted != encrypted:
		return invalid("parameters: %s: the source and its copy are either both encrypted or both not", encryptionParameter)
	case s.fs != pool.Blank && want.FSType != "" && want.FSType != s.fsType:
		return invalid("volume_capabilities.mount.fs_type: %q, but the source has %q", want.FSType, s.fsType)
	}
	return nil
}

// snapshot reads the record of a complete snapshot.
func (d *Driver) snapshot(id string) (*pool.Snapshot, error) {
	s, err := d.pool.Snapshots.Read(id)
	if errors.Is(err, os.ErrNotExist) || err == nil && s.State != pool.Ready {
		return nil, status.Errorf(codes.NotFound, "snapshot_id: node %s has no snapshot %q", d.opts.Node, id)
	}
	return s, failure(err)
}

// cut calls copy with the image of a volume at a moment at which the image is consistent.
// If the volume is in use, the copy must share blocks with the image, because writers wait
// for it.
func (d *Driver) cut(ctx context.Context, v *pool.Volume, copyFrom func(image *os.File, share bool) error) (err error) {
	image, err := d.pool.OpenDisk(v, os.O_RDONLY)
	if err != nil {
		return err
	}
	defer func() { _ = image.Close() }()
	device, err := d.devices.of(ctx, image)
	if err != nil {
		return err
	}
	if device == nil {
		return copyFrom(image, false)
	}
	return d.withQuiet(ctx, v, device, func() error {
		d.opts.Step("snapshot: frozen")
		return shared(copyFrom(image, true))
	})
}

// withQuiet calls f when the disk of a device has all data of its users. A mounted file system
// is frozen meanwhile.
func (d *Driver) withQuiet(ctx context.Context, v *pool.Volume, device *client.Device, f func() error) error {
	if device.State != live {
		return status.Errorf(codes.FailedPrecondition, "the device %s of volume %q is not served: %s", device.Device, v.ID, device.State)
	}
	if v.Stage != nil && !v.Stage.Block {
		t, err := mounts.Read()
		if err != nil {
			return err
		}
		if m := t.At(v.Stage.Path); m != nil && m.MajMin == device.MajMin {
			return unmounted(v, d.withFrozen(ctx, v.Stage.Path, m.MajMin, f))
		}
	}
	if err := flush(ctx, device.Device); err != nil {
		return err
	}
	return f()
}

// flush writes the cached data of a device to its image. If the device does not answer in time, flush returns the
// context's cause.
func flush(ctx context.Context, path string) error {
	_, err := await.Result(ctx, func() (none struct{}, err error) { return none, flushNow(path) })
	return err
}

func flushNow(path string) error {
	disk, err := os.OpenFile(path, os.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = disk.Close() }()
	if err := disk.Sync(); err != nil {
		return fmt.Errorf("flush %s: %w", path, err)
	}
	return nil
}

// shared gives the error of a copy the code of CSI.
func shared(err error) error {
	if errors.Is(err, pool.ErrNoReflink) {
		return status.Errorf(codes.FailedPrecondition, "the volume is in use, and %v; stop its pods first", pool.ErrNoReflink)
	}
	return err
}
