package snapshot

import (
	"errors"
	"syscall"
	"testing"
)

// The numbers are those of docs/cow.md: areas at 1 + (E+1)a, data at 2 + k + k/E.
func TestLayout(t *testing.T) {
	l := layoutOf(t, 16<<10)
	if l.Records() != 1024 || l.Area(0) != 1 || l.Area(1) != 1026 || l.Area(7) != 7176 {
		t.Errorf("records %d, areas %d %d %d", l.Records(), l.Area(0), l.Area(1), l.Area(7))
	}
	for k, want := range map[uint64]uint64{0: 2, 1: 3, 1023: 1025, 1024: 1027, 2047: 2050, 2048: 2052} {
		if got := l.DataChunk(k); got != want {
			t.Errorf("data chunk %d is %d, want %d", k, got, want)
		}
	}
	for chunk, want := range map[uint64]bool{0: true, 1: true, 2: false, 1025: false, 1026: true, 1027: false, 2051: true} {
		if got := l.IsMetadata(chunk); got != want {
			t.Errorf("chunk %d: metadata %v", chunk, got)
		}
	}
}

// Each chunk of a store is the header, an area, or one data chunk.
func TestLayoutCoversEachChunk(t *testing.T) {
	for size := uint32(MinChunkSize); size <= MaxChunkSize; size *= 2 {
		l := layoutOf(t, size)
		area, data := uint64(0), uint64(0)
		for chunk := uint64(1); chunk < 3*uint64(l.Records())+5; chunk++ {
			switch {
			case l.Area(area) == chunk && l.IsMetadata(chunk):
				area++
			case l.DataChunk(data) == chunk && !l.IsMetadata(chunk):
				data++
			default:
				t.Fatalf("chunk size %d: chunk %d is neither area %d nor data chunk %d", size, chunk, area, data)
			}
		}
	}
}

func TestChunkSizes(t *testing.T) {
	for _, size := range []uint32{0, 1, 512, 2048, 4095, 4097, 12 << 10, 2 << 20, 1 << 31, 1<<32 - 1} {
		if _, err := NewLayout(size); !errors.Is(err, ErrChunkSize) || !errors.Is(err, syscall.EINVAL) {
			t.Errorf("%d: %v", size, err)
		}
	}
}

func TestNumberOfChunks(t *testing.T) {
	l := layoutOf(t, 4096)
	for size, want := range map[uint64]uint64{0: 0, 1: 1, 4095: 1, 4096: 1, 4097: 2, MaxChunks << 12: MaxChunks} {
		if got, err := l.OriginChunks(size); err != nil || got != want {
			t.Errorf("origin of %d bytes: %d chunks, error %v", size, got, err)
		}
	}
	for _, size := range []uint64{MaxChunks<<12 + 1, 1<<64 - 1} {
		if _, err := l.OriginChunks(size); !errors.Is(err, ErrTooLarge) {
			t.Errorf("origin of %d bytes: %v", size, err)
		}
	}
	for size, want := range map[uint64]uint64{4095: 0, 4096: 1, 8191: 1, 1<<64 - 1: MaxChunks} {
		if got := l.StoreChunks(size); got != want {
			t.Errorf("store of %d bytes: %d chunks", size, got)
		}
	}
}

// An origin of 1 TiB needs at most 70 MiB at 64 KiB.
func TestIndexMemory(t *testing.T) {
	n, err := IndexLength(layoutOf(t, 64<<10), 1<<40)
	if err != nil || 4*n > 70<<20 {
		t.Errorf("%d bytes, error %v", 4*n, err)
	}
}
