package cowfile

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/transfer/snapshot"
)

// A Range is a part of the origin in bytes.
type Range struct {
	Offset uint64
	Length uint64
}

// Changes are the ranges of an origin that a store replaces.
type Changes struct {
	ChunkSize uint32
	// OriginSize is the size of the origin, or 0 if the store does not say it. The last
	// range can then end behind the origin.
	OriginSize uint64
	Ranges     []Range // in order; none follows the one before it immediately
}

// maxDiff is the maximum number of exceptions that Diff has in memory, 4 bytes for each.
const maxDiff = 1 << 26

// Diff lists the changed chunks of a store. A chunk can have been overwritten with what the
// origin has.
func Diff(path string) (_ *Changes, err error) {
	s, err := openStore(path, true)
	if err != nil {
		return nil, err
	}
	defer func() { _ = s.Close() }()
	if !s.header.Valid {
		return nil, fmt.Errorf("%s: %w", s.Path, ErrInvalid)
	}
	c := &Changes{ChunkSize: s.header.Layout.ChunkSize()}
	if s.label != nil {
		c.OriginSize = s.label.OriginSize
	}
	chunks, err := s.changed()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.Path, err)
	}
	c.add(s.header.Layout, chunks)
	return c, nil
}

// changed returns the chunks of the origin that have an exception, in order.
func (s *store) changed() ([]uint32, error) {
	layout := s.header.Layout
	chunks, err := originChunks(layout, s.label)
	if err != nil {
		return nil, err
	}
	var list []uint32
	_, err = snapshot.Scan(s.File, layout, s.Size, func(e snapshot.Record) error {
		switch {
		case e.Old >= chunks:
			return snapshot.ErrOldRange
		case uint64(len(list)) >= min(chunks, maxDiff):
			return fmt.Errorf("more than %d exceptions: %w", len(list), unix.EFBIG)
		}
		list = append(list, uint32(e.Old))
		return layout.CheckNew(e.New, s.Size)
	})
	slices.Sort(list)
	for i := 1; i < len(list) && err == nil; i++ {
		if list[i] == list[i-1] {
			err = fmt.Errorf("chunk %d: %w", list[i], snapshot.ErrDuplicateOld)
		}
	}
	return list, err
}

// add joins adjacent chunks to ranges.
func (c *Changes) add(l snapshot.Layout, chunks []uint32) {
	for _, chunk := range chunks {
		r := Range{uint64(chunk) << l.Shift(), uint64(l.ChunkSize())}
		if c.OriginSize != 0 {
			r.Length = min(r.Length, c.OriginSize-r.Offset)
		}
		if n := len(c.Ranges); n > 0 && c.Ranges[n-1].Offset+c.Ranges[n-1].Length == r.Offset {
			c.Ranges[n-1].Length += r.Length
			continue
		}
		c.Ranges = append(c.Ranges, r)
	}
}
