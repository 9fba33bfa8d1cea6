package cowfile

import (
	"errors"
	"fmt"

	"github.com/ublk-loop/ublk-loop/loop/internal/backing"
	"github.com/ublk-loop/ublk-loop/loop/internal/basemark"
	"github.com/ublk-loop/ublk-loop/transfer/snapshot"
)

// Info describes a store.
type Info struct {
	Path      string // absolute, with all links resolved
	Valid     bool
	ChunkSize uint32
	Chunks    uint64 // chunks of the origin that have changed
	Usage     snapshot.Usage
	// Label identifies the store and its origin. It is nil for a store of another program.
	Label *snapshot.Label
	// NeededBy are the stores that need the contents of this one. The zero UUID stands for
	// others that have no room in the list.
	NeededBy []snapshot.UUID
}

// Inspect describes a store, also while a device has it. Its records are read, but only
// checked as far as necessary to count them. It reads at most one record for each chunk of the origin,
// and has 8 MiB of them in memory.
func Inspect(path string) (*Info, error) {
	return describe(path, func(info *Info, part *backing.Part) error {
		if err := info.count(part); err != nil {
			return err
		}
		marks, err := basemark.List(part.File())
		for _, u := range marks {
			info.NeededBy = append(info.NeededBy, u)
		}
		return err
	})
}

// IsInvalid reports whether a path leads to a store whose changes are lost.
func IsInvalid(path string) bool {
	info, err := describeHeader(path)
	return err == nil && !info.Valid
}

// describeHeader describes a store without Chunks, Usage and NeededBy. However many records a store
// claims to have, that takes one read.
func describeHeader(path string) (*Info, error) {
	return describe(path, func(*Info, *backing.Part) error { return nil })
}

// describe opens a store and reads its header. more adds to the description.
func describe(path string, more func(*Info, *backing.Part) error) (*Info, error) {
	file, err := backing.OpenPath(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	part, err := backing.OpenPart(file, 0, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = part.Close() }()
	header, label, err := snapshot.ReadLabelled(part)
	if err != nil && !errors.Is(err, snapshot.ErrLabel) {
		return nil, fmt.Errorf("%s: %w", file.Name(), err)
	}
	info := &Info{Path: file.Name(), Valid: header.Valid, ChunkSize: header.Layout.ChunkSize(), Label: label}
	if err := more(info, part); err != nil {
		return nil, fmt.Errorf("%s: %w", file.Name(), err)
	}
	return info, nil
}

// count counts the records of a store.
func (i *Info) count(part *backing.Part) error {
	layout, err := snapshot.NewLayout(i.ChunkSize)
	if err != nil {
		return err
	}
	size := uint64(part.Size())
	if !i.Valid {
		i.Usage = snapshot.NewAllocator(layout, size, snapshot.State{}).Usage(0)
		return nil
	}
	chunks, err := originChunks(layout, i.Label)
	if err != nil {
		return err
	}
	state, err := snapshot.Scan(part, layout, size, func(e snapshot.Record) error {
		switch {
		case e.Old >= chunks:
			return snapshot.ErrOldRange
		case i.Chunks == chunks:
			return snapshot.ErrDuplicateOld
		}
		i.Chunks++
		return layout.CheckNew(e.New, size)
	})
	if err != nil {
		return err
	}
	i.Usage = snapshot.NewAllocator(layout, size, state).Usage(state.Area)
	return nil
}

// originChunks returns the number of chunks of the origin that a label names, or the largest number
// if there is no label.
func originChunks(l snapshot.Layout, label *snapshot.Label) (uint64, error) {
	if label == nil || label.OriginSize == 0 {
		return snapshot.MaxChunks, nil
	}
	return l.OriginChunks(label.OriginSize)
}
