package snapshotter

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/storage"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/transfer/snapshot"
)

// maxStores is the largest number of stores below a device. Commit makes an image of a
// snapshot that has so many: the server has an index in memory for each.
const maxStores = 8

// layer is a file of a snapshot: an image, or a store of changes to the layers below it.
type layer struct {
	name string        // in the directory
	file *os.File      // opened with O_PATH
	size int64         // of the device of this layer and those below it
	uuid snapshot.UUID // of a store
}

// layers are the files of a snapshot: an image, and stores in the order of their changes.
type layers []layer

func (l layers) close() {
	for _, each := range l {
		_ = each.file.Close()
	}
}

// top returns the layer with the latest changes, the only one that a snapshot writes to.
func (l layers) top() *layer { return &l[len(l)-1] }

// stores returns the number of stores.
func (l layers) stores() int { return len(l) - 1 }

// files returns the open files, in the order of table.
func (l layers) files() []*os.File {
	var files []*os.File
	for _, each := range l {
		files = append(files, each.file)
	}
	return files
}

// openLayers opens the files of a snapshot. ids are the ids of the snapshot and its
// parents, the nearest first. The parents of an image do not matter. The caller must close
// the layers.
func (d *directory) openLayers(ids []string) (l layers, err error) {
	defer func() {
		if err != nil {
			l.close()
		}
	}()
	for _, id := range ids {
		each, err := d.openLayer(id)
		if err != nil {
			return l, err
		}
		if l = append(l, each); each.uuid.IsZero() {
			slices.Reverse(l)
			return l, nil
		}
	}
	return l, fmt.Errorf("stores without an image: %w", os.ErrNotExist)
}

// openLayer opens the file of a snapshot. If there are an image and a store, an end of the
// process has kept the store from its removal: the image has all of its changes.
func (d *directory) openLayer(id string) (l layer, err error) {
	l.name = fileOf(id)
	l.file, err = d.openPath(l.name)
	if errors.Is(err, os.ErrNotExist) {
		return d.openStore(storeOf(id))
	}
	if err != nil {
		return l, err
	}
	info, err := l.file.Stat()
	if err != nil {
		return l, errors.Join(err, l.file.Close())
	}
	l.size = info.Size()
	return l, nil
}

// openImage opens an image that is the only layer of a snapshot.
func (d *directory) openImage(name string) (layers, error) {
	file, err := d.openPath(name)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return layers{{name: name, file: file, size: info.Size()}}, nil
}

// openStore opens a store, whose label has the size of the device.
func (d *directory) openStore(name string) (l layer, err error) {
	l.name = name
	f, err := d.Open(name)
	if err != nil {
		return l, err
	}
	defer func() { _ = f.Close() }()
	header, label, err := snapshot.ReadLabelled(f)
	switch {
	case err != nil:
	case label == nil:
		err = unix.EINVAL
	case !header.Valid:
		err = fmt.Errorf("its changes are lost: %w", unix.EIO)
	case label.Frozen:
		err = fmt.Errorf("it was forked, and later changes are in another store: %w", unix.EPERM)
	}
	if err != nil {
		return l, fmt.Errorf("store %s: %w", f.Name(), err)
	}
	l.size, l.uuid = int64(label.OriginSize), label.UUID
	l.file, err = d.openPath(name)
	return l, err
}

// table returns the text of the tables that show all layers as one device (docs/tables.md).
// A device that is larger than the layers below it begins with zeros there.
func (l layers) table() string {
	var tables []string
	below := "layer0"
	for i := 1; i < len(l); i++ {
		had, size := l[i-1].size/sectorBytes, l[i].size/sectorBytes
		if size > had {
			tables = append(tables, fmt.Sprintf("larger%d,,,ro,0 %d linear %s 0,%d %d zero", i, had, below, had, size-had))
			below = fmt.Sprintf("/dev/mapper/larger%d", i)
		}
		mode := "ro"
		if i == len(l)-1 {
			mode = "rw"
		}
		tables = append(tables, fmt.Sprintf("changed%d,,,%s,0 %d snapshot %s layer%d P %d 1 discard_zeroes_cow", i, mode, size, below, i, storeChunk/sectorBytes))
		below = fmt.Sprintf("/dev/mapper/changed%d", i)
	}
	return strings.Join(tables, ";")
}

// sectorBytes is the unit of tables.
const sectorBytes = 512

// openParent opens the files of a parent, and returns its id. Without a parent, it opens
// the empty file system.
func (s *Snapshotter) openParent(ctx context.Context, parent string) (id string, l layers, err error) {
	if parent == "" {
		name, err := s.scratch.file(ctx)
		if err != nil {
			return "", nil, err
		}
		l, err := s.dir.openImage(name)
		return "", l, err
	}
	ids, err := s.lineage(ctx, parent)
	if err != nil {
		return "", nil, err
	}
	l, err = s.dir.openLayers(ids)
	return ids[0], l, err
}

// lineage returns the ids of a committed snapshot and its parents, the nearest first.
func (s *Snapshotter) lineage(ctx context.Context, parent string) (ids []string, err error) {
	err = s.metadata.WithTransaction(ctx, false, func(ctx context.Context) error {
		for key := parent; key != ""; {
			id, info, _, err := storage.GetInfo(ctx, key)
			if err != nil {
				return err
			}
			if info.Kind != snapshots.KindCommitted {
				return fmt.Errorf("parent %s is not committed: %w", key, errdefs.ErrInvalidArgument)
			}
			ids, key = append(ids, id), info.Parent
		}
		return nil
	})
	return ids, err
}
