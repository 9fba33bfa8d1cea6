package pool

import (
	"context"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/filecopy"
	"github.com/ublk-loop/ublk-loop/transfer/snapshot"
)

// FlattenVolume makes the image of a volume with the content of a chain, whose layers nothing
// writes to. files are from OpenLayers.
func (p *Pool) FlattenVolume(ctx context.Context, id string, chain []*Layer, files []*os.File, size int64, thick bool) error {
	return p.Volumes.make(id, func(f *os.File) error {
		if err := flatten(ctx, f, chain, files); err != nil {
			return err
		}
		return grow(f, chain[len(chain)-1].Size, size, thick)
	})
}

// FlattenLayer makes a layer that is an image with the content of a chain, whose layers nothing
// writes to. With thick all of its blocks are allocated. files are from OpenLayers.
func (p *Pool) FlattenLayer(ctx context.Context, id string, chain []*Layer, files []*os.File, thick bool) error {
	l := &Layer{ID: id, State: Making, Size: chain[len(chain)-1].Size}
	return p.makeLayer(l, func() error {
		return p.Layers.make(id, func(f *os.File) error {
			if err := flatten(ctx, f, chain, files); err != nil {
				return err
			}
			return grow(f, l.Size, l.Size, thick)
		})
	})
}

// flatten writes the data of an image and the changes of stores to a file.
func flatten(ctx context.Context, to *os.File, chain []*Layer, files []*os.File) error {
	for i, l := range chain {
		apply := filecopy.Data
		if l.IsStore() {
			apply = func(ctx context.Context, to, from *os.File) error { return applyStore(ctx, to, from, l.Size) }
		}
		if err := apply(ctx, to, files[i]); err != nil {
			return fmt.Errorf("copy layer %s: %w", l.ID, err)
		}
	}
	return nil
}

// applyStore writes the changed chunks of a store to a file.
func applyStore(ctx context.Context, to, from *os.File, size int64) error {
	return eachChunk(ctx, from, size, func(c *changed) error {
		n, err := io.Copy(io.NewOffsetWriter(to, c.at), io.NewSectionReader(from, c.from, c.length))
		if err == nil && n != c.length {
			err = fmt.Errorf("chunk %d: %w", c.chunk, io.ErrUnexpectedEOF)
		}
		return err
	})
}

// changed is a chunk that a store has.
type changed struct {
	chunk            uint64
	at, from, length int64 // of its bytes in the disk and in the store
}

// changes are the chunks that a store has.
type changes struct {
	store  *os.File
	size   int64 // of the disk
	layout snapshot.Layout
	index  snapshot.Index
}

// readChanges reads which chunks a store for a disk of some size has.
func readChanges(store *os.File, size int64) (*changes, error) {
	header, err := snapshot.ReadHeader(store)
	if err != nil {
		return nil, err
	}
	if !header.Valid {
		return nil, fmt.Errorf("invalid store, its changes are lost: %w", unix.EIO)
	}
	info, err := store.Stat()
	if err != nil {
		return nil, err
	}
	chunks, err := snapshot.IndexLength(header.Layout, uint64(size))
	if err != nil {
		return nil, err
	}
	c := &changes{store, size, header.Layout, snapshot.NewIndex(make([]uint32, chunks))}
	_, err = snapshot.Load(store, c.layout, uint64(info.Size()), c.index)
	return c, err
}

// chunk returns a chunk; ok is false if the store does not have it.
func (c *changes) chunk(number uint64) (found changed, ok bool) {
	slot := c.index.Lookup(number)
	if !slot.Replaced() {
		return changed{}, false
	}
	at := c.layout.Offset(number)
	return changed{number, at, c.layout.Offset(slot.Chunk()), min(int64(c.layout.ChunkSize()), c.size-at)}, true
}

// eachChunk calls a function for each chunk that a store for a disk of some size has.
func eachChunk(ctx context.Context, store *os.File, size int64, each func(*changed) error) error {
	c, err := readChanges(store, size)
	if err != nil {
		return err
	}
	for number := range c.index.Len() {
		found, ok := c.chunk(number)
		if !ok {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := each(&found); err != nil {
			return err
		}
	}
	return nil
}
