package snapshotter

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/ublk-loop/ublk-loop/internal/filecopy"
	"github.com/ublk-loop/ublk-loop/transfer/snapshot"
)

// storeChunk is the size of a chunk of a store in bytes.
const storeChunk = 64 << 10

// makeStore makes an empty store for changes to layers. The store has room for a change of
// each chunk of a device of size bytes.
func makeStore(to *os.File, below layers, size int64) (snapshot.UUID, error) {
	label := &snapshot.Label{UUID: snapshot.NewUUID(), OriginSize: uint64(size), OriginPath: below.top().file.Name(), Parent: below.top().uuid}
	layout, err := snapshot.NewLayout(storeChunk)
	if err != nil {
		return label.UUID, err
	}
	chunks, err := layout.OriginChunks(label.OriginSize)
	if err != nil {
		return label.UUID, err
	}
	if err := to.Truncate(int64(layout.StoreSize(chunks))); err != nil {
		return label.UUID, err
	}
	return label.UUID, snapshot.FormatLabelled(to, layout, label)
}

// flatten writes the content of layers to a new file.
func (d *directory) flatten(ctx context.Context, to *os.File, l layers) error {
	image, err := d.Open(l[0].name)
	if err != nil {
		return err
	}
	defer func() { _ = image.Close() }()
	if err := filecopy.Data(ctx, to, image); err != nil {
		return fmt.Errorf("copy %s to %s: %w", image.Name(), to.Name(), err)
	}
	for i := range l[1:] {
		if err := d.copyStore(ctx, to, &l[i+1]); err != nil {
			return fmt.Errorf("copy %s to %s: %w", l[i+1].file.Name(), to.Name(), err)
		}
	}
	return nil
}

// copyStore writes the changes in a store to a file.
func (d *directory) copyStore(ctx context.Context, to *os.File, l *layer) error {
	store, err := d.Open(l.name)
	if err != nil {
		return err
	}
	defer func() { _ = store.Close() }()
	info, err := store.Stat()
	if err != nil {
		return err
	}
	header, err := snapshot.ReadHeader(store)
	if err == nil {
		err = to.Truncate(l.size)
	}
	if err != nil {
		return err
	}
	c := copying{to: to, store: store, storeSize: uint64(info.Size()), layout: header.Layout, size: l.size, buffer: make([]byte, header.Layout.ChunkSize())}
	_, err = snapshot.Scan(store, c.layout, c.storeSize, func(r snapshot.Record) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		return c.copy(r)
	})
	return err
}

// copying is the state of copyStore.
type copying struct {
	to, store *os.File
	storeSize uint64
	layout    snapshot.Layout
	size      int64 // of the device
	buffer    []byte
}

// copy copies the chunk of a record.
func (c *copying) copy(r snapshot.Record) error {
	if err := c.layout.CheckNew(r.New, c.storeSize); err != nil {
		return err
	}
	chunks, err := c.layout.OriginChunks(uint64(c.size))
	if err == nil && r.Old >= chunks {
		err = snapshot.ErrOldRange
	}
	if err != nil {
		return err
	}
	at := c.layout.Offset(r.Old)
	b := c.buffer[:min(int64(len(c.buffer)), c.size-at)] // the last chunk may be incomplete
	if _, err := c.store.ReadAt(b, c.layout.Offset(r.New)); err != nil {
		return err
	}
	_, err = c.to.WriteAt(b, at)
	return err
}

// flattenOwn makes an image of a snapshot whose device is gone. The image takes the place
// of the store: from the time when it has its name, the store does not matter.
func (s *Snapshotter) flattenOwn(ctx context.Context, id string, l layers) error {
	to, err := s.dir.unfinished(s.nextName())
	if err != nil {
		return err
	}
	defer func() { _ = to.Close() }()
	err = s.dir.flatten(ctx, to, l)
	if err == nil {
		err = s.dir.finish(to, fileOf(id))
	}
	if err != nil {
		return errors.Join(err, ignoreNotExist(s.dir.Remove(filepath.Base(to.Name()))))
	}
	return ignoreNotExist(s.dir.Remove(storeOf(id))) // Cleanup may have removed it
}
