package snapshot

import (
	"errors"
	"syscall"
	"testing"
)

// A store of each size gives out every data chunk, except one whose record would need an
// area behind the end, and Left says how many.
func TestAllocate(t *testing.T) {
	l := layoutOf(t, MinChunkSize)
	per := uint64(l.Records())
	for chunks := uint64(2); chunks < 3*per+6; chunks++ {
		a := NewAllocator(l, chunks*MinChunkSize+MinChunkSize-1, State{})
		given := uint64(0)
		for left := a.Left(); ; left-- {
			if a.Left() != left {
				t.Fatalf("%d chunks: %d are left after %d, want %d", chunks, a.Left(), given, left)
			}
			chunk, err := a.Allocate()
			if errors.Is(err, ErrFull) && errors.Is(err, syscall.ENOSPC) && left == 0 {
				break
			}
			if err != nil || chunk != l.DataChunk(given) || chunk >= chunks {
				t.Fatalf("%d chunks: the one of number %d is %d, error %v", chunks, given, chunk, err)
			}
			given++
		}
		if area := l.Area(given / per); area >= chunks {
			t.Fatalf("%d chunks: the next record belongs to area %d behind the end", chunks, area)
		}
		if missing := l.DataChunk(given); missing < chunks && missing+1 != chunks {
			t.Fatalf("%d chunks: chunk %d was not given out", chunks, missing)
		}
	}
}

// StoreSize is the smallest size with so many chunks.
func TestStoreSize(t *testing.T) {
	l := layoutOf(t, MinChunkSize)
	for chunks := uint64(1); chunks < 3*uint64(l.Records()); chunks++ {
		size := l.StoreSize(chunks)
		if got := NewAllocator(l, size, State{}).Left(); got != chunks {
			t.Fatalf("%d bytes for %d chunks have %d", size, chunks, got)
		}
		if got := NewAllocator(l, size-1, State{}).Left(); got >= chunks {
			t.Fatalf("%d bytes for %d chunks are too many", size, chunks)
		}
	}
}

func TestAllocateAfterGrowth(t *testing.T) {
	l := layoutOf(t, MinChunkSize)
	a := NewAllocator(l, 3*MinChunkSize, State{})
	if chunk, err := a.Allocate(); chunk != 2 || err != nil {
		t.Fatal(chunk, err)
	}
	if _, err := a.Allocate(); !errors.Is(err, ErrFull) || a.Left() != 0 {
		t.Fatal(err)
	}
	a.Resize(4 * MinChunkSize)
	if chunk, err := a.Allocate(); chunk != 3 || err != nil {
		t.Fatal(chunk, err)
	}
	a.Resize(MinChunkSize)
	if _, err := a.Allocate(); !errors.Is(err, ErrFull) || a.Left() != 0 {
		t.Fatal(err)
	}
}

func TestTransient(t *testing.T) {
	a := NewTransientAllocator(layoutOf(t, MinChunkSize), 3*MinChunkSize+100)
	for want := range uint64(3) {
		if u := a.Usage(9); u != (Usage{Allocated: 8 * want, Total: 24}) {
			t.Errorf("usage %+v", u)
		}
		if chunk, err := a.Allocate(); chunk != want || err != nil {
			t.Fatal(chunk, err)
		}
	}
	if _, err := a.Allocate(); !errors.Is(err, ErrFull) {
		t.Fatal(err)
	}
}

func TestUsage(t *testing.T) {
	l := layoutOf(t, 16<<10)
	a := NewAllocator(l, 100<<20+512, State{})
	if u := a.Usage(0); u != (Usage{Allocated: 64, Total: 204801, Metadata: 64}) {
		t.Errorf("new store: %+v", u)
	}
	a = NewAllocator(l, 100<<20, State{Area: 1, NextFree: 1028})
	if u := a.Usage(1); u != (Usage{Allocated: 1028 * 32, Total: 204800, Metadata: 96}) {
		t.Errorf("%+v", u)
	}
}
