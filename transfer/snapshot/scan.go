package snapshot

import (
	"encoding/binary"
	"fmt"
	"io"
)

// A Record is an exception in a store.
type Record struct {
	Old uint64 // chunk of the origin
	New uint64 // chunk of the store
}

// A State is what a store has after its last record. The zero value is the state of a
// new store.
type State struct {
	Area     uint64 // the area where the next record belongs
	Used     uint32 // number of records in this area
	NextFree uint64 // chunk after the last one that a record names; 0 in a new store

	area []byte // the bytes of the area; nil in a new store
}

// next returns the first chunk to give out. It is the one that the kernel uses next.
func (s State) next() uint64 { return max(s.NextFree, firstFree) }

// Records returns the number of exceptions.
func (s State) Records(l Layout) uint64 { return s.Area*uint64(l.Records()) + uint64(s.Used) }

// Scan calls visit for each record in order, and checks only that the next area exists if
// one is full. It has up to eight areas in memory, or up to 8 MiB. The record of an
// error is the one that visit refused.
func Scan(r io.ReaderAt, l Layout, storeSize uint64, visit func(Record) error) (State, error) {
	if chunks := l.StoreChunks(storeSize); chunks <= firstFree {
		return State{}, fmt.Errorf("%d bytes: %w", storeSize, ErrTooSmall)
	}
	var s State
	read := newAreaReader(r, l, storeSize)
	defer read.stop()
	for {
		b, err := read.next()
		if err != nil {
			return State{}, err
		}
		if err := s.visitArea(b, visit); err != nil {
			return State{}, err
		}
		if s.Used < l.Records() {
			s.area = append([]byte(nil), b...)
			break
		}
		s.Area, s.Used = s.Area+1, 0
	}
	if l.isArea(s.NextFree) {
		s.NextFree++
	}
	return s, nil
}

// visitArea calls visit for the records of an area, up to the first with new chunk 0.
func (s *State) visitArea(b []byte, visit func(Record) error) error {
	for ; len(b) > 0; b = b[recordSize:] {
		e := Record{Old: binary.LittleEndian.Uint64(b), New: binary.LittleEndian.Uint64(b[8:])}
		if e.New == 0 {
			return nil
		}
		if err := visit(e); err != nil {
			return &RecordError{Area: s.Area, Record: s.Used, Old: e.Old, New: e.New, Err: err}
		}
		s.NextFree = max(s.NextFree, e.New+1)
		s.Used++
	}
	return nil
}
