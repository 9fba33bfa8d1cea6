package snapshotter

import (
	"context"
	"fmt"

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
	id, err := s.detachForCommit(ctx, key)
	if err != nil {
		return err
	}
	if err := s.dir.sync(fileOf(id)); err != nil {
		return err
	}
	usage, err := s.dir.usage(fileOf(id))
	if err != nil {
		return err
	}
	return s.metadata.WithTransaction(ctx, true, func(ctx context.Context) error {
		_, err := storage.CommitActive(ctx, key, name, usage, opts...)
		return err
	})
}

// detachForCommit removes the device of an active snapshot, and returns the snapshot's
// id.
func (s *Snapshotter) detachForCommit(ctx context.Context, key string) (string, error) {
	id, info, _, err := s.get(ctx, key)
	switch {
	case err != nil:
		return "", err
	case info.Kind != snapshots.KindActive:
		return "", fmt.Errorf("it is not active: %w", errdefs.ErrFailedPrecondition)
	case isImage(info.Labels):
		return "", fmt.Errorf("it is an image of the host: %w", errdefs.ErrFailedPrecondition)
	}
	file, err := s.dir.openPath(fileOf(id))
	if err != nil {
		return "", err
	}
	defer func() { _ = file.Close() }()
	return id, s.devices.release(ctx, &wanted{id: id, file: file, own: true}, s.settings.AttachTimeout)
}
