package cow

import (
	"encoding/binary"
	"testing"

	"github.com/ublk-loop/ublk-loop/transfer/snapshot"
	"github.com/ublk-loop/ublk-loop/transfer/table"
)

// fuzzOrigin is the size of the origin, and fuzzStore that of the store in chunks.
const (
	fuzzOrigin = 600 * chunk
	fuzzStore  = 2*(perArea+1) + 40
)

// header returns the header of a valid store.
func header() []byte {
	b := []byte("SnAp\x01\x00\x00\x00\x01\x00\x00\x00")
	return binary.LittleEndian.AppendUint32(b, chunk/512)
}

// records returns records in their form on disk.
func records(numbers ...uint64) (b []byte) {
	for _, n := range numbers {
		b = binary.LittleEndian.AppendUint64(b, n)
	}
	return b
}

// content returns the beginning of a store: a header, valid records in front, and then others.
func content(header []byte, front uint16, others []byte) []byte {
	b := make([]byte, chunk)
	copy(b, header)
	for i := range uint64(front) % (perArea + 1) {
		b = append(b, records(i, i+2)...)
	}
	return append(b, others...)
}

// An attached store can have any bytes. Open refuses it, or shows each record that it has. After
// first writes the store has these records and the new ones, when it is opened again.
func FuzzOpen(f *testing.F) {
	for _, others := range [][]uint64{nil, {301, 302, 303, 304}, {301, 302, 301, 303}, {301, 302, 303, 302}, {301, 1}, {301, 1 << 40}, {1 << 62, 302}, {301, 302, 0, 0, 305, 303}, {599, fuzzStore - 1}} {
		for _, front := range []uint16{0, 1, perArea - 1, perArea} {
			f.Add(header(), front, records(others...), uint16(3))
		}
	}
	f.Add([]byte(nil), uint16(0), []byte(nil), uint16(3))
	f.Fuzz(func(t *testing.T, header []byte, front uint16, others []byte, writes uint16) {
		file := memory(t, fuzzStore*chunk)
		if _, err := file.WriteAt(content(header[:min(len(header), chunk)], front, others[:min(len(others), chunk)]), 0); err != nil {
			t.Fatal(err)
		}
		o := &Options{Format: table.Persistent, ChunkBytes: chunk, OriginSize: fuzzOrigin, Block: 512}
		s, err := Open(file, o)
		if err != nil {
			return
		}
		want := exceptions(s)
		if s.Usage().State == "" {
			for range writes % 40 {
				addRecord(t, s, want)
			}
		}
		state := s.Usage().State
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if s, err = Open(file, o); err != nil {
			t.Fatalf("the store was taken once: %v", err)
		}
		defer func() {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		}()
		if state != "" {
			return // an invalid store has no changes
		}
		got := exceptions(s)
		for old, replacement := range want {
			if got[old] != replacement {
				t.Errorf("chunk %d is in chunk %d, want %d", old, got[old], replacement)
			}
		}
		if len(got) != len(want) {
			t.Errorf("%d exceptions, want %d", len(got), len(want))
		}
	})
}

// exceptions returns what the index has.
func exceptions(s *Store) map[uint64]uint64 {
	list := map[uint64]uint64{}
	for old := range s.Index.Len() {
		if slot := s.Index.Lookup(old); slot.Replaced() {
			list[old] = slot.Chunk()
		}
	}
	return list
}

// addRecord carries out a first write to the first chunk that has none. No chunk is given out twice.
func addRecord(t *testing.T, s *Store, have map[uint64]uint64) {
	t.Helper()
	for old := range s.Index.Len() {
		if !s.Index.Claim(old) {
			continue
		}
		replacement, errno := s.Allocate(old)
		if errno != 0 {
			return // it is full
		}
		for _, used := range have {
			if used == replacement || s.Layout.IsMetadata(replacement) || replacement >= fuzzStore {
				t.Fatalf("chunk %d is given out", replacement)
			}
		}
		if !s.Add(snapshot.Record{Old: old, New: replacement}) {
			t.Fatal("no room for a record")
		}
		have[old] = replacement
		return
	}
}
