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
// checked as far as necessary to count them.
func Inspect(path string) (*Info, error) {
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
	info, err := inspect(part)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file.Name(), err)
	}
	info.Path = file.Name()
	marks, err := basemark.List(part.File())
	for _, u := range marks {
		info.NeededBy = append(info.NeededBy, u)
	}
	return info, err
}

func inspect(part *backing.Part) (*Info, error) {
	header, label, err := snapshot.ReadLabelled(part)
	if err != nil && !errors.Is(err, snapshot.ErrLabel) {
		return nil, err
	}
	layout, size := header.Layout, uint64(part.Size())
	info := &Info{Valid: header.Valid, ChunkSize: layout.ChunkSize(), Label: label}
	if !header.Valid {
		info.Usage = snapshot.NewAllocator(layout, size, snapshot.State{}).Usage(0)
		return info, nil
	}
	state, err := snapshot.Scan(part, layout, size, func(e snapshot.Record) error {
		return layout.CheckNew(e.New, size)
	})
	if err != nil {
		return nil, err
	}
	info.Chunks = state.Records(layout)
	info.Usage = snapshot.NewAllocator(layout, size, state).Usage(state.Area)
	return info, nil
}
