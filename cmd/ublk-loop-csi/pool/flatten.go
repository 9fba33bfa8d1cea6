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
		_, err := io.Copy(io.NewOffsetWriter(to, c.at), io.NewSectionReader(from, c.from, c.length))
		return err
	})
}

// changed is a chunk that a store has.
type changed struct {
	chunk            uint64
	at, from, length int64 // of its bytes in the disk and in the store
}

// eachChunk calls a function for each chunk that a store for a disk of some size has.
func eachChunk(ctx context.Context, store *os.File, size int64, each func(*changed) error) error {
	header, err := snapshot.ReadHeader(store)
	if err != nil {
		return err
	}
	if !header.Valid {
		return fmt.Errorf("invalid store, its changes are lost: %w", unix.EIO)
	}
	info, err := store.Stat()
	if err != nil {
		return err
	}
	layout := header.Layout
	chunks, err := snapshot.IndexLength(layout, uint64(size))
	if err != nil {
		return err
	}
	index := snapshot.NewIndex(make([]uint32, chunks))
	if _, err := snapshot.Load(store, layout, uint64(info.Size()), index); err != nil {
		return err
	}
	for chunk := range chunks {
		slot := index.Lookup(chunk)
		if !slot.Replaced() {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		at := layout.Offset(chunk)
		c := changed{chunk, at, layout.Offset(slot.Chunk()), min(int64(layout.ChunkSize()), size-at)}
		if err := each(&c); err != nil {
			return err
		}
	}
	return nil
}
