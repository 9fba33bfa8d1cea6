package snapshotter

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/storage"
	"github.com/containerd/errdefs"

	"github.com/ublk-loop/ublk-loop/internal/oci"
)

// Options are the options of New.
type Options struct {
	// Root is the directory of all files. New makes it if it does not exist. Only the
	// user of this process may have access to it.
	Root string
	// Size is the size in bytes of the file system of a snapshot without a parent, and of
	// its children: a multiple of 4096, at least 8 MiB. The files are sparse.
	Size int64
	// MaxSize is the largest size that a label can ask for, at least Size. 0 stands for
	// Size.
	MaxSize int64
	// Settings has the server's socket, the time to wait for a device, and the
	// directories of images.
	Settings *oci.Settings
	// Report is called with errors of files that New cannot remove. It can be nil.
	Report func(error)
}

// minSize is the smallest Size: ext4 needs it for its journal.
const minSize = 8 << 20

func (o *Options) validate() error {
	switch {
	case !filepath.IsAbs(o.Root):
		return fmt.Errorf("directory %q: not an absolute path: %w", o.Root, os.ErrInvalid)
	case o.Size < minSize || o.Size%blockSize != 0:
		return fmt.Errorf("size %d: not a multiple of 4096 from %d on: %w", o.Size, minSize, os.ErrInvalid)
	case o.MaxSize != 0 && o.MaxSize < o.Size:
		return fmt.Errorf("maximum size %d: less than the size %d: %w", o.MaxSize, o.Size, os.ErrInvalid)
	}
	return nil
}

// Snapshotter implements containerd's interface of that name.
type Snapshotter struct {
	dir      *directory
	metadata *storage.MetaStore
	scratch  scratch
	devices  *devices
	settings *oci.Settings
	maxSize  int64
	requests requests
	made     atomic.Uint64 // number of files made since the start
	closing  sync.Once
}

var (
	_ snapshots.Snapshotter = (*Snapshotter)(nil)
	_ snapshots.Cleaner     = (*Snapshotter)(nil)
)

// New returns a snapshotter. It returns an error that wraps EWOULDBLOCK while another
// process uses the directory, EPERM if other users have access to the directory, and
// os.ErrInvalid if the options are invalid.
func New(ctx context.Context, o Options) (*Snapshotter, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	dir, err := openDirectory(o.Root)
	if err != nil {
		return nil, err
	}
	s := &Snapshotter{
		dir: dir, settings: o.Settings, devices: newDevices(o.Settings),
		scratch: scratch{dir: dir, size: o.Size}, maxSize: max(o.Size, o.MaxSize),
	}
	report := o.Report
	if report == nil {
		report = func(error) {}
	}
	if s.metadata, err = storage.NewMetaStore(dir.path("metadata.db")); err == nil {
		err = s.removeUnfinished(ctx, report)
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Close ends the leases of all devices. Mounted devices stay until they are unmounted, as
// after the end of the process.
func (s *Snapshotter) Close() error {
	var err error
	s.closing.Do(func() {
		s.devices.close()
		if s.metadata != nil {
			err = s.metadata.Close()
		}
		err = errors.Join(err, s.dir.close())
	})
	return err
}

// Stat returns the metadata of a snapshot.
func (s *Snapshotter) Stat(ctx context.Context, key string) (snapshots.Info, error) {
	_, info, _, err := s.get(ctx, key)
	return info, err
}

// get returns the id and the metadata of a snapshot, and its disk usage at the time of
// its commit.
func (s *Snapshotter) get(ctx context.Context, key string) (id string, info snapshots.Info, usage snapshots.Usage, err error) {
	err = s.metadata.WithTransaction(ctx, false, func(ctx context.Context) error {
		id, info, usage, err = storage.GetInfo(ctx, key)
		return err
	})
	return id, info, usage, err
}

// Update changes labels, except those that name an image or a size.
func (s *Snapshotter) Update(ctx context.Context, info snapshots.Info, fieldpaths ...string) (snapshots.Info, error) {
	defer s.requests.lock(info.Name)()
	var updated snapshots.Info
	err := s.metadata.WithTransaction(ctx, true, func(ctx context.Context) error {
		_, before, _, err := storage.GetInfo(ctx, info.Name)
		if err != nil {
			return err
		}
		if updated, err = storage.UpdateInfo(ctx, info, fieldpaths...); err != nil {
			return err
		}
		switch {
		case !sameImage(before.Labels, updated.Labels):
			err = fmt.Errorf("snapshot %s: its image cannot be changed: %w", info.Name, errdefs.ErrInvalidArgument)
		case updated.Kind == snapshots.KindActive && before.Labels[SizeLabel] != updated.Labels[SizeLabel]:
			err = fmt.Errorf("snapshot %s: its size cannot be changed: %w", info.Name, errdefs.ErrInvalidArgument)
		}
		return err
	})
	return updated, err
}

// Usage returns the disk usage of a snapshot's file. It does not count the blocks that the
// file shares with its parent. A committed snapshot has the usage at its commit, when it
// has no children yet.
func (s *Snapshotter) Usage(ctx context.Context, key string) (snapshots.Usage, error) {
	id, info, usage, err := s.get(ctx, key)
	if err != nil || info.Kind != snapshots.KindActive || isImage(info.Labels) {
		return usage, err
	}
	return s.dir.usage(s.dir.nameOf(id))
}

// Walk calls fn for each snapshot.
func (s *Snapshotter) Walk(ctx context.Context, fn snapshots.WalkFunc, filters ...string) error {
	return s.metadata.WithTransaction(ctx, false, func(ctx context.Context) error {
		if _, err := storage.IDMap(ctx); errdefs.IsNotFound(err) {
			return nil // there has never been a snapshot
		}
		return storage.WalkInfo(ctx, fn, filters...)
	})
}
