package snapshotter

import (
	"context"
	"fmt"
	"os"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/storage"
	"github.com/containerd/errdefs"
)

// Commit turns an active snapshot into a parent. It returns an error that wraps
// errdefs.ErrFailedPrecondition if the device stays in use for attach_timeout, or if the
// snapshot is an image.
func (s *Snapshotter) Commit(ctx context.Context, name, key string, opts ...snapshots.Opt) error {
	defer s.requests.lock(key)()
	labels, err := labelsOf(opts)
	if err == nil && isImage(labels) {
		err = fmt.Errorf("label %s is for containers: %w", ImageLabel, errdefs.ErrInvalidArgument)
	}
	if err == nil {
		err = s.commit(ctx, name, key, opts)
	}
	if err != nil {
		return fmt.Errorf("commit snapshot %s: %w", key, err)
	}
	return nil
}

func (s *Snapshotter) commit(ctx context.Context, name, key string, opts []snapshots.Opt) error {
	ids, err := s.detachForCommit(ctx, key)
	if err != nil {
		return err
	}
	top, err := s.settle(ctx, ids)
	if err != nil {
		return err
	}
	if err := s.dir.sync(top); err != nil {
		return err
	}
	usage, err := s.dir.usage(top)
	if err != nil {
		return err
	}
	return s.metadata.WithTransaction(ctx, true, func(ctx context.Context) error {
		_, err := storage.CommitActive(ctx, key, name, usage, opts...)
		return err
	})
}

// settle returns the name of the file of a snapshot that is about to become a parent. It
// makes an image of a snapshot that has maxStores stores, so that children have fewer.
func (s *Snapshotter) settle(ctx context.Context, ids []string) (string, error) {
	l, err := s.dir.openLayers(ids)
	if err != nil {
		return "", err
	}
	defer l.close()
	if l.stores() < maxStores {
		return l.top().name, nil
	}
	return fileOf(ids[0]), s.flattenOwn(ctx, ids[0], l)
}

// detachForCommit removes the device of an active snapshot, and returns the ids of the
// snapshot and its parents.
func (s *Snapshotter) detachForCommit(ctx context.Context, key string) ([]string, error) {
	snapshot, info, err := s.withParents(ctx, key)
	switch {
	case err != nil:
		return nil, err
	case info.Kind != snapshots.KindActive:
		return nil, fmt.Errorf("it is not active: %w", errdefs.ErrFailedPrecondition)
	case isImage(info.Labels):
		return nil, fmt.Errorf("it is an image of the host: %w", errdefs.ErrFailedPrecondition)
	}
	file, err := s.dir.openPath(s.dir.nameOf(snapshot.ID))
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	w := wanted{id: snapshot.ID, files: []*os.File{file}, own: true}
	return append([]string{snapshot.ID}, snapshot.ParentIDs...), s.devices.release(ctx, &w, s.settings.AttachTimeout)
}
