package cow

import (
	"fmt"

	"github.com/ublk-loop/ublk-loop/loop/internal/mapping"
	"github.com/ublk-loop/ublk-loop/transfer/snapshot"
	"github.com/ublk-loop/ublk-loop/transfer/table"
)

// Format returns the format of the store.
func (s *Store) Format() table.Format { return s.format }

// IsEmpty reports whether the store has no changes.
func (s *Store) IsEmpty() bool {
	for chunk := range s.Index.Len() {
		if !s.Index.Lookup(chunk).IsNone() {
			return false
		}
	}
	return true
}

// CheckOrigin returns an error that wraps snapshot.ErrOldRange if the store has a chunk that an origin of some
// size in bytes does not have. The store could not be opened with such an origin again.
func (s *Store) CheckOrigin(size uint64) error {
	chunks, err := s.Layout.OriginChunks(size)
	if err != nil {
		return err
	}
	for chunk := chunks; chunk < s.Index.Len(); chunk++ {
		if !s.Index.Lookup(chunk).IsNone() {
			return fmt.Errorf("chunk %d of the store: %w", chunk, snapshot.ErrOldRange)
		}
	}
	return nil
}

// IsInvalid reports whether all requests fail.
func (s *Store) IsInvalid() bool { return s.state.Load() == mapping.Invalid }

// IsTransient reports whether the store has no records on disk.
func (s *Store) IsTransient() bool { return s.format == table.Transient }

// invalidate makes all further requests fail. The goroutine says so in the header.
func (s *Store) invalidate() {
	if s.state.Swap(mapping.Invalid) != mapping.Invalid {
		s.wake()
		s.reportFailure()
	}
}

// overflow makes all further writes fail.
func (s *Store) overflow() {
	if s.state.CompareAndSwap(mapping.Usable, mapping.Overflow) {
		s.reportFailure()
	}
}

func (s *Store) reportFailure() {
	if s.failed != nil {
		s.failed(s.stateText())
	}
}

// stateText returns the state in the words of dmsetup status.
func (s *Store) stateText() string {
	switch s.state.Load() {
	case mapping.Invalid:
		return Invalid
	case mapping.Overflow:
		return Overflow
	}
	return ""
}

// writeInvalid writes a header that says that the store is invalid. The label stays, because
// the base says that the store with this label needs it.
func (s *Store) writeInvalid() error {
	if s.marked {
		return nil
	}
	block := s.block
	if _, err := s.file.ReadAt(block, 0); err != nil {
		return fmt.Errorf("invalidate the store: %w", err)
	}
	snapshot.Header{Layout: s.Layout}.Append(block[:0])
	if _, err := s.write(snapshot.Write{Data: block}); err != nil {
		return fmt.Errorf("invalidate the store: %w", err)
	}
	s.marked = true
	return nil
}

// These are states of a store, as dmsetup status has them.
const (
	Invalid  = "Invalid"  // all requests fail
	Overflow = "Overflow" // all writes fail
)

// Usage is the use of a store.
type Usage struct {
	snapshot.Usage
	State string // Invalid or Overflow; empty for a usable store
}

// String returns the text of dmsetup status.
func (u Usage) String() string {
	if u.State != "" {
		return u.State
	}
	return fmt.Sprintf("%d/%d %d", u.Allocated, u.Total, u.Metadata)
}

// Usage returns the use of the store.
func (s *Store) Usage() Usage {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Usage{s.alloc.Usage(s.area), s.stateText()}
}
