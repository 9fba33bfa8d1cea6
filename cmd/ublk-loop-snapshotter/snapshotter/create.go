package snapshotter

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/storage"
	"github.com/containerd/errdefs"
)

// Prepare makes an active snapshot with the content of its parent.
func (s *Snapshotter) Prepare(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	return s.create(ctx, &creation{kind: snapshots.KindActive, key: key, parent: parent, opts: opts})
}

// View makes a read-only snapshot of its parent.
func (s *Snapshotter) View(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	return s.create(ctx, &creation{kind: snapshots.KindView, key: key, parent: parent, opts: opts})
}

// creation is a request for a snapshot.
type creation struct {
	kind        snapshots.Kind
	key, parent string
	opts        []snapshots.Opt
	size        int64 // of an active snapshot, 0 for that of its parent
}

// create makes a snapshot and its device. If the device fails, create removes the
// snapshot again.
func (s *Snapshotter) create(ctx context.Context, c *creation) ([]mount.Mount, error) {
	defer s.requests.lock(c.key)()
	labels, err := labelsOf(c.opts)
	if err != nil {
		return nil, err
	}
	img, err := imageOf(labels)
	if err != nil {
		return nil, err
	}
	if c.kind == snapshots.KindActive {
		if c.size, err = s.sizeOf(labels); err != nil {
			return nil, err
		}
	}
	if img == nil && c.kind == snapshots.KindActive {
		err = s.createFile(ctx, c)
	} else {
		err = s.record(ctx, c, nil)
	}
	if err != nil {
		return nil, fmt.Errorf("create snapshot %s: %w", c.key, err)
	}
	mounts, err := s.mounts(ctx, c.key)
	if err != nil {
		return nil, errors.Join(err, s.erase(context.WithoutCancel(ctx), c.key))
	}
	return mounts, nil
}

// labelsOf returns the labels that the options set.
func labelsOf(opts []snapshots.Opt) (map[string]string, error) {
	var info snapshots.Info
	for _, opt := range opts {
		if err := opt(&info); err != nil {
			return nil, err
		}
	}
	return info.Labels, nil
}

// createFile makes an active snapshot and its file, a copy of its parent's. It does not
// lock the metadata while it copies.
func (s *Snapshotter) createFile(ctx context.Context, c *creation) error {
	parentID, name, err := s.parentFile(ctx, c.parent)
	if err != nil {
		return err
	}
	from, err := s.dir.Open(name)
	if err != nil {
		return err
	}
	defer func() { _ = from.Close() }()
	to, err := s.dir.unfinished(s.nextName())
	if err != nil {
		return err
	}
	defer func() { _ = to.Close() }()
	err = clone(ctx, to, from)
	if err == nil && c.size != 0 {
		err = resize(ctx, to, c.size)
	}
	if err == nil {
		err = to.Sync() // before the transaction, so that no other request waits for it
	}
	if err == nil {
		err = s.record(ctx, c, func(created *storage.Snapshot) error {
			if len(created.ParentIDs) > 0 && created.ParentIDs[0] != parentID {
				return fmt.Errorf("parent %s was replaced: %w", c.parent, errdefs.ErrUnavailable)
			}
			return s.dir.finish(to, fileOf(created.ID))
		})
	}
	if err != nil {
		return errors.Join(err, ignoreNotExist(s.dir.Remove(filepath.Base(to.Name()))))
	}
	return nil
}

// nextName returns the unique name of a new file.
func (s *Snapshotter) nextName() string { return fmt.Sprintf("%d", s.made.Add(1)) }

func ignoreNotExist(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// parentFile returns the id of a parent and the name of its file. Without a parent, it
// returns the empty file system.
func (s *Snapshotter) parentFile(ctx context.Context, parent string) (id, name string, err error) {
	if parent == "" {
		name, err = s.scratch.file(ctx)
		return "", name, err
	}
	id, info, _, err := s.get(ctx, parent)
	if err == nil && info.Kind != snapshots.KindCommitted {
		err = fmt.Errorf("parent %s is not committed: %w", parent, errdefs.ErrInvalidArgument)
	}
	return id, fileOf(id), err
}

// record adds a snapshot to the metadata. If finish is not nil and fails, the snapshot is
// not added.
func (s *Snapshotter) record(ctx context.Context, c *creation, finish func(*storage.Snapshot) error) error {
	return s.metadata.WithTransaction(ctx, true, func(ctx context.Context) error {
		created, err := storage.CreateSnapshot(ctx, c.kind, c.key, c.parent, c.opts...)
		if err != nil || finish == nil {
			return err
		}
		return finish(&created)
	})
}
