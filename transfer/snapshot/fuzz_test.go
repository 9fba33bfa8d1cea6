package snapshot

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"io"
	"testing"
)

// fuzzStore is a store of 4 KiB chunks whose areas are the fuzzer's bytes, one after the other.
type fuzzStore struct {
	l     Layout
	bytes []byte
}

func (f fuzzStore) ReadAt(b []byte, at int64) (int, error) {
	clear(b)
	area := uint64(at) >> f.l.Shift() / f.l.stride()
	if from := area * uint64(f.l.ChunkSize()); from < uint64(len(f.bytes)) {
		copy(b, f.bytes[from:])
	}
	return len(b), nil
}

// What Load accepts is consistent: each record is in the index and leads to a data chunk of
// its own, the next free chunk is behind all of them, and the log continues the list.
func FuzzLoad(f *testing.F) {
	f.Add([]byte{}, uint16(1000))
	f.Add(binary.LittleEndian.AppendUint64(make([]byte, 8), 2), uint16(4))
	two := binary.LittleEndian.AppendUint64([]byte{1, 0, 0, 0, 0, 0, 0, 0}, 2)
	two = binary.LittleEndian.AppendUint64(append(two, 7, 0, 0, 0, 0, 0, 0, 0), 5)
	f.Add(two, uint16(6))
	f.Fuzz(func(t *testing.T, b []byte, chunks uint16) {
		l := layoutOf(t, MinChunkSize)
		store, size := fuzzStore{l, b}, uint64(chunks)*MinChunkSize
		x := NewIndex(make([]uint32, 64))
		s, err := Load(store, l, size, x)
		if err != nil {
			return
		}
		found := map[uint64]bool{}
		for old := range x.Len() {
			slot := x.Lookup(old)
			if slot.IsNone() {
				continue
			}
			if chunk := slot.Chunk(); l.IsMetadata(chunk) || chunk >= uint64(chunks) || found[chunk] || chunk >= s.NextFree {
				t.Fatalf("chunk %d has chunk %d", old, chunk)
			}
			found[slot.Chunk()] = true
		}
		if uint64(len(found)) != s.Records(l) {
			t.Fatalf("%d records, %d exceptions", s.Records(l), len(found))
		}
		g, err := NewLog(l, s, make([]byte, l.ChunkSize()), sectorSize)
		if err != nil || g.Records() != s.Records(l) {
			t.Fatalf("log of %d records, error %v", g.Records(), err)
		}
	})
}

func FuzzHeader(f *testing.F) {
	f.Add([]byte("SnAp\x01\x00\x00\x00\x01\x00\x00\x00\x10\x00\x00\x00"))
	f.Add(make([]byte, HeaderSize))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := ParseHeader(b)
		if err != nil {
			return
		}
		if again, err := ParseHeader(h.Append(nil)); err != nil || again != h {
			t.Fatalf("%+v becomes %+v, error %v", h, again, err)
		}
	})
}

// A label with right checksums that is accepted is written again as it was.
func FuzzLabel(f *testing.F) {
	for _, l := range []Label{{}, {UUID: NewUUID(), Frozen: true, Verity: true, OriginSize: 1 << 40, OriginPath: "/srv/a.img", Parent: NewUUID()}} {
		block := make([]byte, HeaderBlock)
		if err := l.Put(block); err != nil {
			f.Fatal(err)
		}
		f.Add(block[atLabel:])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		block := make([]byte, HeaderBlock)
		copy(block[atLabel:], b)
		label := block[atLabel:atPath]
		if n := binary.LittleEndian.Uint32(label[atPathSize:]); n <= MaxOriginPath {
			binary.LittleEndian.PutUint32(label[atPathSum:], crc32.Checksum(block[atPath:][:n], castagnoli()))
			clear(block[atPath+n:])
		}
		binary.LittleEndian.PutUint32(label[atChecksum:], labelSum(label))
		l, err := ParseLabel(block)
		if l == nil || err != nil {
			return
		}
		again := make([]byte, HeaderBlock)
		if err := l.Put(again); err != nil || !bytes.Equal(again, block) {
			t.Fatalf("%+v is written otherwise, error %v", l, err)
		}
	})
}

var _ io.ReaderAt = fuzzStore{}
