package snapshotter

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/storage"
	"github.com/containerd/errdefs"
)

// removePatience is how long Remove waits for a device that is in use, by udev
// perhaps: containerd collects its garbage meanwhile, and tries again later.
const removePatience = time.Second

// Remove removes a snapshot. It returns an error that wraps
// errdefs.ErrFailedPrecondition for one whose device is in use, and for a parent.
// A view's or an image's device of a process that has ended is not looked for: it
// goes when it is unmounted.
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

// erase removes a snapshot whose device nobody uses.
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
	// It is nobody's now; where this fails, Cleanup tries again.
	_ = s.dir.Remove(fileOf(id))
	return nil
}

// detachForRemove ends the device of a snapshot.
func (s *Snapshotter) detachForRemove(ctx context.Context, id string, info *snapshots.Info) error {
	w := wanted{id: id, readOnly: true}
	switch {
	case info.Kind == snapshots.KindCommitted:
		return nil
	case info.Kind == snapshots.KindActive && !isImage(info.Labels):
		file, err := s.dir.openPath(fileOf(id))
		if err != nil {
			return ignoreNotExist(err)
		}
		defer func() { _ = file.Close() }()
		w = wanted{id: id, file: file, own: true}
	}
	return s.devices.release(ctx, &w, removePatience)
}

// Cleanup removes files that are no snapshot's.
func (s *Snapshotter) Cleanup(ctx context.Context) error {
	// A file gets its name in a transaction, so that none is new now.
	return s.metadata.WithTransaction(ctx, true, func(ctx context.Context) error {
		known, err := storage.IDMap(ctx)
		if err != nil && !errdefs.IsNotFound(err) { // there was no snapshot yet
			return err
		}
		return s.dir.removeAllBut(snapshotsDir, func(id string) bool { return known[id] != "" })
	})
}

// removeUnfinished removes what a process left that has ended.
func (s *Snapshotter) removeUnfinished(ctx context.Context) error {
	return errors.Join(s.dir.removeAllBut(".", isFinished), s.Cleanup(ctx))
}
