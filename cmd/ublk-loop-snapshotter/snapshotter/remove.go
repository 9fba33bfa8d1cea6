package snapshotter

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/storage"
	"github.com/containerd/errdefs"
)

// removePatience is the time that Remove waits for a device in use. The user may be udev.
// containerd collects garbage meanwhile, and tries again later.
const removePatience = time.Second

// Remove removes a snapshot. It returns an error that wraps errdefs.ErrFailedPrecondition
// if the device is in use, or if the snapshot is a parent. Remove does not look for the
// read-only or image device of an earlier process: the server removes such a device when
// it is unmounted.
func (s *Snapshotter) Remove(ctx context.Context, key string) error {
	defer s.requests.lock(key)()
	id, info, _, err := s.get(ctx, key)
	if err == nil {
		err = s.detachForRemove(ctx, id, &info)
	}
	if err == nil {
		err = s.erase(ctx, key)
	}
	if err != nil {
		return fmt.Errorf("remove snapshot %s: %w", key, err)
	}
	return nil
}

// erase removes a snapshot whose device is gone.
func (s *Snapshotter) erase(ctx context.Context, key string) error {
	var id string
	err := s.metadata.WithTransaction(ctx, true, func(ctx context.Context) error {
		var err error
		id, _, err = storage.Remove(ctx, key)
		return err
	})
	if err != nil {
		return err
	}
	s.devices.drop(id)
	// The file no longer belongs to a snapshot. If the removal fails, Cleanup tries
	// again.
	_ = s.dir.removeFiles(id)
	return nil
}

// detachForRemove removes the device of a snapshot.
func (s *Snapshotter) detachForRemove(ctx context.Context, id string, info *snapshots.Info) error {
	w := wanted{id: id, readOnly: true}
	switch {
	case info.Kind == snapshots.KindCommitted:
		return nil
	case info.Kind == snapshots.KindActive && !isImage(info.Labels):
		file, err := s.dir.openPath(s.dir.nameOf(id))
		if err != nil {
			return ignoreNotExist(err)
		}
		defer func() { _ = file.Close() }()
		w = wanted{id: id, files: []*os.File{file}, own: true}
	}
	return s.devices.release(ctx, &w, removePatience)
}

// Cleanup removes files that belong to no snapshot, and stores whose image is there: their
// removal failed after Commit had made the image.
func (s *Snapshotter) Cleanup(ctx context.Context) error {
	var left []error
	err := s.cleanup(ctx, func(err error) { left = append(left, err) })
	return errors.Join(append(left, err)...)
}

// cleanup calls failed with the error of each file that cannot be removed.
func (s *Snapshotter) cleanup(ctx context.Context, failed func(error)) error {
	// A file gets its name within a transaction, so that no file is new here.
	return s.metadata.WithTransaction(ctx, true, func(ctx context.Context) error {
		known, err := storage.IDMap(ctx)
		if err != nil && !errdefs.IsNotFound(err) { // there has never been a snapshot
			return err
		}
		return s.dir.removeAllBut(snapshotsDir, func(name string) bool {
			id, isStore := strings.CutSuffix(name, storeSuffix)
			return known[id] != "" && !(isStore && s.dir.exists(fileOf(id)))
		}, failed)
	})
}

// removeUnfinished removes the files that an earlier process left unfinished. A file that cannot be removed takes space, and
// does no other harm.
func (s *Snapshotter) removeUnfinished(ctx context.Context, failed func(error)) error {
	return errors.Join(s.dir.removeAllBut(".", isFinished, failed), s.cleanup(ctx, failed))
}
