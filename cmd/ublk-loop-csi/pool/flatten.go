package pool

import (
	"context"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/transfer/snapshot"
)

// FlattenVolume makes the image of a volume with the content of a chain, whose layers nothing
// writes to.
func (p *Pool) FlattenVolume(ctx context.Context, id string, chain []*Layer, size int64, thick bool) error {
	return p.Volumes.make(id, func(f *os.File) error {
		if err := p.flatten(ctx, f, chain); err != nil {
			return err
		}
		return grow(f, chain[len(chain)-1].Size, size, thick)
	})
}

// FlattenLayer makes a layer that is an image with the content of a chain, whose layers nothing
// writes to.
func (p *Pool) FlattenLayer(ctx context.Context, id string, chain []*Layer) error {
	l := &Layer{ID: id, State: Making, Size: chain[len(chain)-1].Size}
	return p.makeLayer(l, func() error {
		return p.Layers.make(id, func(f *os.File) error { return p.flatten(ctx, f, chain) })
	})
}

func (p *Pool) flatten(ctx context.Context, to *os.File, chain []*Layer) error {
	for _, l := range chain {
		if err := p.apply(ctx, to, l); err != nil {
			return fmt.Errorf("copy layer %s: %w", l.ID, err)
		}
	}
	return nil
}

// apply writes the data of an image, or the changes of a store, to a file.
func (p *Pool) apply(ctx context.Context, to *os.File, l *Layer) error {
	from, err := p.Layers.OpenImage(l.ID, os.O_RDONLY)
	if err != nil {
		return err
	}
	defer func() { _ = from.Close() }()
	if !l.IsStore() {
		return copyData(ctx, to, from)
	}
	return applyStore(ctx, to, from, l.Size)
}

// applyStore writes the changed chunks of a store to a file.
func applyStore(ctx context.Context, to, from *os.File, size int64) error {
	header, err := snapshot.ReadHeader(from)
	if err != nil {
		return err
	}
	if !header.Valid {
		return fmt.Errorf("invalid store, its changes are lost: %w", unix.EIO)
	}
	info, err := from.Stat()
	if err != nil {
		return err
	}
	layout := header.Layout
	chunks, err := snapshot.IndexLength(layout, uint64(size))
	if err != nil {
		return err
	}
	index := snapshot.NewIndex(make([]uint32, chunks))
	if _, err := snapshot.Load(from, layout, uint64(info.Size()), index); err != nil {
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
		data := io.NewSectionReader(from, layout.Offset(slot.Chunk()), min(int64(layout.ChunkSize()), size-at))
		if _, err := io.Copy(io.NewOffsetWriter(to, at), data); err != nil {
			return err
		}
	}
	return nil
}
