package snapshot

import "fmt"

// A Builder fills a new store that nothing else uses. After a crash or an error the store has none of
// the changes, or a part of them.
type Builder struct {
	w       Medium
	layout  Layout
	alloc   *Allocator
	records []Record
}

// NewBuilder makes a new store of some size, with a label. What is there must be zero.
func NewBuilder(w Medium, l Layout, size uint64, label *Label) (*Builder, error) {
	if err := FormatLabelled(w, l, label); err != nil {
		return nil, err
	}
	return &Builder{w: w, layout: l, alloc: NewAllocator(l, size, State{})}, nil
}

// Add writes the data of a chunk of the origin. Each chunk is added once. The data of the last one can
// be shorter than a chunk.
func (b *Builder) Add(chunk uint64, data []byte) error {
	replacement, err := b.alloc.Allocate()
	if err != nil {
		return err
	}
	if _, err := b.w.WriteAt(data, b.layout.Offset(replacement)); err != nil {
		return fmt.Errorf("write a chunk of the store: %w", err)
	}
	b.records = append(b.records, Record{Old: chunk, New: replacement})
	return nil
}

// Finish makes the store durable.
func (b *Builder) Finish() error {
	if err := b.w.Sync(); err != nil {
		return err
	}
	size := int(b.layout.ChunkSize())
	log, err := NewLog(b.layout, State{}, make([]byte, size), HeaderBlock)
	if err != nil {
		return err
	}
	zeroes := make([]byte, size)
	for rest := b.records; len(rest) > 0; {
		batch := log.Append(rest)
		if _, err := b.w.WriteAt(zeroes[:batch.Zero.Length], batch.Zero.Offset); err != nil {
			return fmt.Errorf("write records of the store: %w", err)
		}
		if _, err := b.w.WriteAt(batch.Records.Data, batch.Records.Offset); err != nil {
			return fmt.Errorf("write records of the store: %w", err)
		}
		log.Commit()
		rest = rest[batch.Count:]
	}
	return b.w.Sync()
}
