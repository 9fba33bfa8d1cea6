package snapshotter

import (
	"context"
	"fmt"
	"os"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/storage"
	"github.com/containerd/errdefs"

	"github.com/ublk-loop/ublk-loop/internal/oci"
)

// Mounts returns the mounts of an active snapshot or a view. It attaches the device again
// if the device is gone.
func (s *Snapshotter) Mounts(ctx context.Context, key string) ([]mount.Mount, error) {
	defer s.requests.lock(key)()
	return s.mounts(ctx, key)
}

// mounts is Mounts for a caller that holds the lock of the snapshot.
func (s *Snapshotter) mounts(ctx context.Context, key string) ([]mount.Mount, error) {
	src, err := s.source(ctx, key)
	if err != nil {
		return nil, err
	}
	defer src.close()
	h, err := s.devices.attach(ctx, &src.wanted)
	if err != nil {
		return nil, err
	}
	bounded, cancel := context.WithTimeoutCause(ctx, s.settings.AttachTimeout, errTimeout)
	defer cancel()
	fsType, options, err := src.options.For(bounded, h.Disk())
	if err != nil {
		return nil, fmt.Errorf("mount %s: %w", src.file().Name(), reworded(err))
	}
	return []mount.Mount{{Type: fsType, Source: h.Device.Device, Options: options}}, nil
}

// source is the file of a snapshot's device, with its mount options.
type source struct {
	wanted
	options *oci.MountOptions
}

// source finds the file of an active snapshot or a view. The caller must close the file.
func (s *Snapshotter) source(ctx context.Context, key string) (*source, error) {
	snapshot, info, err := s.withParents(ctx, key)
	if err != nil {
		return nil, err
	}
	img, err := imageOf(info.Labels)
	if err != nil {
		return nil, err
	}
	if img != nil {
		return s.imageSource(snapshot, img)
	}
	return s.ownSource(ctx, snapshot)
}

// withParents returns an active snapshot or a view, with the ids of its parents, and its
// metadata.
func (s *Snapshotter) withParents(ctx context.Context, key string) (*storage.Snapshot, snapshots.Info, error) {
	var info snapshots.Info
	var snapshot storage.Snapshot
	err := s.metadata.WithTransaction(ctx, false, func(ctx context.Context) error {
		var err error
		if _, info, _, err = storage.GetInfo(ctx, key); err == nil {
			snapshot, err = storage.GetSnapshot(ctx, key)
		}
		return err
	})
	if err != nil {
		return nil, info, fmt.Errorf("get snapshot %s: %w", key, err)
	}
	return &snapshot, info, nil
}

// requester is the origin of all requests for images.
var requester = oci.Requester{Handler: oci.HandlerSnapshotter}

// imageSource finds an image file of the host. A view of it is read-only.
func (s *Snapshotter) imageSource(snapshot *storage.Snapshot, img *image) (*source, error) {
	if snapshot.Kind == snapshots.KindView && !img.options.ReadOnly() {
		return nil, fmt.Errorf("label %s: a view cannot be written to: %w", OptionsLabel, errdefs.ErrInvalidArgument)
	}
	f, err := s.settings.OpenImage(img.path, &img.disk, requester)
	if err != nil {
		return nil, fmt.Errorf("label %s: %w: %w", ImageLabel, errdefs.ErrInvalidArgument, err)
	}
	return &source{wanted{id: snapshot.ID, files: []*os.File{f}, readOnly: img.options.ReadOnly(), disk: &img.disk}, img.options}, nil
}

// ownSource finds the files of an active snapshot, or those of a view's parent.
func (s *Snapshotter) ownSource(ctx context.Context, snapshot *storage.Snapshot) (*source, error) {
	view := snapshot.Kind == snapshots.KindView
	ids, mode := append([]string{snapshot.ID}, snapshot.ParentIDs...), "rw"
	if view {
		ids, mode = snapshot.ParentIDs, "ro"
	}
	options, err := oci.ParseOptions(mode)
	if err != nil {
		return nil, err
	}
	var l layers
	if len(ids) > 0 {
		l, err = s.dir.openLayers(ids)
	} else {
		_, l, err = s.openParent(ctx, "")
	}
	if err != nil {
		return nil, err
	}
	return &source{wanted{id: snapshot.ID, files: l.files(), table: l.table(), readOnly: view, own: true}, options}, nil
}
