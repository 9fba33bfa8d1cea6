package snapshotter

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/storage"
	"github.com/containerd/errdefs"

	"github.com/ublk-loop/ublk-loop/internal/filecopy"
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

// createFile makes an active snapshot and its file. It does not lock the metadata while it
// makes the file.
func (s *Snapshotter) createFile(ctx context.Context, c *creation) error {
	parentID, below, err := s.openParent(ctx, c.parent)
	if err != nil {
		return err
	}
	defer below.close()
	to, err := s.dir.unfinished(s.nextName())
	if err != nil {
		return err
	}
	defer func() { _ = to.Close() }()
	isStore, err := s.fill(ctx, to, below, c)
	if err == nil {
		err = to.Sync() // before the transaction, so that no other request waits for it
	}
	if err == nil {
		err = s.record(ctx, c, func(created *storage.Snapshot) error {
			if len(created.ParentIDs) > 0 && created.ParentIDs[0] != parentID {
				return fmt.Errorf("parent %s was replaced: %w", c.parent, errdefs.ErrUnavailable)
			}
			return s.finishFile(to, created.ID, isStore)
		})
	}
	if err != nil {
		return errors.Join(err, ignoreNotExist(s.dir.Remove(filepath.Base(to.Name()))))
	}
	return nil
}

// fill makes the file of a snapshot: a copy of the parent's image if that shares its
// blocks, else a store of changes to the parent. The empty file system has so little data
// that it is always copied.
func (s *Snapshotter) fill(ctx context.Context, to *os.File, below layers, c *creation) (isStore bool, err error) {
	if below.stores() == 0 {
		copied, err := s.copyImage(ctx, to, below.top(), c.parent == "")
		if err == nil && copied && c.size != 0 {
			err = resize(ctx, to, c.size)
		}
		if copied || err != nil {
			return false, err
		}
	}
	size := max(below.top().size, c.size)
	uuid, err := makeStore(to, below, size)
	if err == nil && c.size != 0 {
		err = s.resizeStore(ctx, to, append(slices.Clone(below), layer{size: size, uuid: uuid}), c.size)
	}
	if err != nil {
		return false, fmt.Errorf("make a store %s: %w", to.Name(), err)
	}
	return true, nil
}

// copyImage copies an image. If it cannot share the blocks, it copies them or reports
// false.
func (s *Snapshotter) copyImage(ctx context.Context, to *os.File, image *layer, always bool) (copied bool, err error) {
	from, err := s.dir.Open(image.name)
	if err != nil {
		return false, err
	}
	defer func() { _ = from.Close() }()
	err = filecopy.Share(to, from)
	if filecopy.IsUnsupported(err) {
		if !always {
			return false, nil
		}
		err = filecopy.Data(ctx, to, from)
	}
	if err != nil {
		return false, fmt.Errorf("copy %s to %s: %w", from.Name(), to.Name(), err)
	}
	return true, nil
}

// finishFile gives the file of a new snapshot its name. A file with the id of a new
// snapshot is from one that the metadata does not have.
func (s *Snapshotter) finishFile(to *os.File, id string, isStore bool) error {
	if !isStore {
		return s.dir.finish(to, fileOf(id))
	}
	if err := ignoreNotExist(s.dir.Remove(fileOf(id))); err != nil {
		return err
	}
	return s.dir.finish(to, storeOf(id))
}

// nextName returns the unique name of a new file.
func (s *Snapshotter) nextName() string { return fmt.Sprintf("%d", s.made.Add(1)) }

func ignoreNotExist(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
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
