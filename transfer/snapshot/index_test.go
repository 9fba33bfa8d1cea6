package snapshot

import (
	"sync"
	"sync/atomic"
	"testing"
)

func TestIndex(t *testing.T) {
	x := NewIndex(make([]uint32, 3))
	state := func(want string) {
		t.Helper()
		s := x.Lookup(1)
		got := map[[3]bool]string{
			{true, false, false}: "none", {false, true, false}: "pending", {false, false, true}: "replaced",
		}[[3]bool{s.IsNone(), s.IsPending(), s.Replaced()}]
		if got != want {
			t.Fatalf("slot %d is %q, want %s", s, got, want)
		}
	}
	state("none")
	if !x.Claim(1) || x.Claim(1) {
		t.Fatal("Claim must succeed once")
	}
	state("pending")
	if x.Lookup(1).Writable() || x.Lookup(0).Writable() {
		t.Fatal("a chunk without an exception is writable")
	}
	x.Drop(1)
	state("none")
	for _, chunk := range []uint64{0, 2, MaxChunks - 1} {
		if !x.Claim(1) {
			t.Fatal("not claimed")
		}
		x.Publish(1, chunk)
		state("replaced")
		if got := x.Lookup(1).Chunk(); got != chunk {
			t.Fatalf("chunk %d, want %d", got, chunk)
		}
		if x.Claim(1) || !x.Lookup(1).Writable() {
			t.Fatal("claimed a chunk that has an exception, or it cannot be written to")
		}
		x.BeginMerge(1)
		state("replaced")
		if got := x.Lookup(1); got.Chunk() != chunk || got.Writable() || x.Claim(1) {
			t.Fatalf("merging: chunk %d, slot %x", got.Chunk(), got)
		}
		x.EndMerge(1)
		if got := x.Lookup(1); got.Chunk() != chunk || !got.Writable() {
			t.Fatalf("not merging: chunk %d, slot %x", got.Chunk(), got)
		}
		x.BeginMerge(1)
		x.Drop(1)
	}
	if !x.Lookup(0).IsNone() || !x.Lookup(2).IsNone() || x.Len() != 3 {
		t.Error("other slots have changed")
	}
}

// Of many goroutines that want a chunk, one gets it.
func TestClaimHasOneOwner(t *testing.T) {
	x := NewIndex(make([]uint32, 1000))
	var owners atomic.Int64
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for chunk := range x.Len() {
				if x.Claim(chunk) {
					owners.Add(1)
					x.Publish(chunk, chunk+2)
				}
				if s := x.Lookup(chunk); s.Replaced() && s.Chunk() != chunk+2 {
					t.Errorf("chunk %d has slot %d", chunk, s)
				}
			}
		})
	}
	all.Wait()
	if owners.Load() != 1000 {
		t.Errorf("%d owners of 1000 chunks", owners.Load())
	}
}
