package pool

import (
	"context"
	"fmt"
	"os"

	"github.com/ublk-loop/ublk-loop/transfer/snapshot"
)

// MergeIntoImage writes the changes of a store to the image below it, which nothing else needs. The
// store shows the same disk meanwhile, because it hides what is written.
func (p *Pool) MergeIntoImage(ctx context.Context, store *Layer) error {
	image, err := p.Layers.OpenImage(store.Parent, os.O_RDWR)
	if err != nil {
		return err
	}
	defer func() { _ = image.Close() }()
	from, err := p.Layers.OpenImage(store.ID, os.O_RDONLY)
	if err != nil {
		return err
	}
	defer func() { _ = from.Close() }()
	if err = applyStore(ctx, image, from, store.Size); err == nil {
		err = image.Sync()
	}
	if err != nil {
		return fmt.Errorf("merge layer %s into %s: %w", store.ID, store.Parent, err)
	}
	return nil
}

// MergeStores makes a store with the changes of two stores, the lower of which is the parent of the
// upper. Nothing writes to them.
func (p *Pool) MergeStores(ctx context.Context, id string, lower, upper *Layer) error {
	l := &Layer{ID: id, State: Making, Size: upper.Size, Parent: lower.Parent}
	files, err := p.OpenLayers([]*Layer{lower, upper}, os.O_RDONLY)
	if err != nil {
		return err
	}
	defer CloseLayers(files)
	err = p.makeLayer(l, func() error {
		return p.Layers.make(id, func(to *os.File) error {
			return mergeStores(ctx, to, files[0], files[1], l.Size, p.Layers.ImagePath(l.Parent))
		})
	})
	if err != nil {
		return fmt.Errorf("merge layers %s and %s: %w", lower.ID, upper.ID, err)
	}
	return nil
}

func mergeStores(ctx context.Context, to, lower, upper *os.File, size int64, origin string) error {
	layout, err := snapshot.NewLayout(chunkBytes)
	if err != nil {
		return err
	}
	bytes, err := StoreBytes(size)
	if err == nil {
		err = to.Truncate(bytes)
	}
	if err != nil {
		return err
	}
	label := &snapshot.Label{UUID: snapshot.NewUUID(), Frozen: true, OriginSize: uint64(size), OriginPath: origin}
	b, err := snapshot.NewBuilder(to, layout, uint64(bytes), label)
	if err != nil {
		return err
	}
	data, hidden := make([]byte, chunkBytes), map[uint64]bool{}
	copyFrom := func(from *os.File) func(*changed) error {
		return func(c *changed) error {
			if hidden[c.chunk] {
				return nil
			}
			hidden[c.chunk] = true
			if _, err := from.ReadAt(data[:c.length], c.from); err != nil {
				return err
			}
			return b.Add(c.chunk, data[:c.length])
		}
	}
	for _, from := range []*os.File{upper, lower} {
		if err := eachChunk(ctx, from, size, copyFrom(from)); err != nil {
			return err
		}
	}
	return b.Finish()
}
