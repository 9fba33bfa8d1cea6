package cowfile

import (
	"context"
	"fmt"
	"io"

	"github.com/ublk-loop/ublk-loop/loop/internal/cow"
	"github.com/ublk-loop/ublk-loop/transfer/snapshot"
)

// medium is a file or disk.
type medium interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
}

// maxRun is the maximum number of bytes that are copied between two flushes.
const maxRun = 64 << 20

// merging is the state of a merge. Its order of steps is that of the kernel: records are
// removed from the end of the list, after their data has reached the medium of the base.
// So the list is valid after each step. Whoever merges the store later copies what is left,
// or copies the last run again.
type merging struct {
	store, base medium
	baseSize    uint64
	layout      snapshot.Layout
	log         *snapshot.Log
	run         []snapshot.Record // memory for the records of a run
	buffer      []byte
	copied      uint64 // chunks
}

// newMerging checks all records of a store.
func newMerging(store, base medium, l snapshot.Layout, storeSize, baseSize uint64) (*merging, error) {
	chunks, err := snapshot.IndexLength(l, baseSize)
	if err == nil {
		err = cow.CheckIndex(chunks, l)
	}
	if err != nil {
		return nil, err
	}
	state, err := snapshot.Load(store, l, storeSize, snapshot.NewIndex(make([]uint32, chunks)))
	if err != nil {
		return nil, err
	}
	log, err := snapshot.NewLog(l, state, make([]byte, l.ChunkSize()), snapshot.MinChunkSize)
	if err != nil {
		return nil, err
	}
	return &merging{
		store: store, base: base, baseSize: baseSize, layout: l, log: log,
		run: make([]snapshot.Record, max(1, maxRun>>l.Shift())), buffer: make([]byte, max(1<<20, l.ChunkSize())),
	}, nil
}

// all merges everything. It ends early, between two runs, if the context does.
func (m *merging) all(ctx context.Context) error {
	for {
		more, err := m.log.Back(m.store)
		if err != nil || !more {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := m.one(m.log.Last(m.run)); err != nil {
			return err
		}
	}
}

// one merges the last records of the list.
func (m *merging) one(records []snapshot.Record) error {
	for rest := records; len(rest) > 0; {
		n := snapshot.Adjacent(rest, len(rest))
		if err := m.copy(rest[0], n); err != nil {
			return fmt.Errorf("copy chunk %d: %w", rest[0].Old, err)
		}
		rest = rest[n:]
	}
	if err := m.base.Sync(); err != nil {
		return fmt.Errorf("flush the base: %w", err)
	}
	w := m.log.Remove(len(records)).Records
	if _, err := m.store.WriteAt(w.Data, w.Offset); err != nil {
		return fmt.Errorf("remove records: %w", err)
	}
	if err := m.store.Sync(); err != nil {
		return fmt.Errorf("remove records: %w", err)
	}
	m.log.Commit()
	m.copied += uint64(len(records))
	return nil
}

// copy copies n contiguous chunks. The base can end within the last one.
func (m *merging) copy(first snapshot.Record, n int) error {
	from, to := m.layout.Offset(first.New), m.layout.Offset(first.Old)
	left := min(m.layout.Offset(uint64(n)), int64(m.baseSize)-to)
	for left > 0 {
		b := m.buffer[:min(left, int64(len(m.buffer)))]
		if _, err := io.ReadFull(io.NewSectionReader(m.store, from, int64(len(b))), b); err != nil {
			return fmt.Errorf("read the store: %w", err)
		}
		if _, err := m.base.WriteAt(b, to); err != nil {
			return fmt.Errorf("write the base: %w", err)
		}
		from, to, left = from+int64(len(b)), to+int64(len(b)), left-int64(len(b))
	}
	return nil
}
