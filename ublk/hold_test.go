package ublk

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// A queue that holds keeps new requests in order, and gives them to the handler afterwards.
func TestQueueHolds(t *testing.T) {
	b := onBench(t, BufferCopy, "/dev/null")
	if err := b.deliver(0, OpRead, 0); err != nil {
		t.Fatal(err)
	}
	b.hold()
	for _, tag := range []int{2, 1} {
		if err := b.deliver(tag, OpWrite, 0); err != nil {
			t.Fatal(err)
		}
	}
	b.endTurn()
	if !slices.Equal(b.handled, []int{0}) || b.inService != 1 || b.counters.held.Load() != 2 || b.dev.isQuiet(nil) {
		t.Errorf("held: %v were handled, %d are in service, %d held", b.handled, b.inService, b.counters.held.Load())
	}
	b.reqs[0].CompleteErrno(0)
	b.endTurn()
	if !b.dev.isQuiet(nil) {
		t.Error("a device without a request but those that are kept is not quiet")
	}
	b.resume()
	if err := b.deliver(3, OpFlush, 0); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(b.handled, []int{0, 2, 1, 3}) || b.reqs[1].Op != OpWrite || b.inService != 3 || b.counters.held.Load() != 0 || b.counters.inService.Load() != 2 {
		t.Errorf("resumed: %v were handled, %d are in service, %d held", b.handled, b.inService, b.counters.held.Load())
	}
}

// A hold that begins before the last one ends keeps the requests of both.
func TestQueueHoldsTwice(t *testing.T) {
	b := onBench(t, BufferCopy, "/dev/null")
	b.hold()
	if err := b.deliver(0, OpRead, 0); err != nil {
		t.Fatal(err)
	}
	b.hold()
	b.resume()
	if err := b.deliver(1, OpRead, 0); err != nil {
		t.Fatal(err)
	}
	if len(b.handled) != 0 || b.counters.held.Load() != 2 {
		t.Errorf("held: %v were handled, %d held", b.handled, b.counters.held.Load())
	}
	b.resume()
	if !slices.Equal(b.handled, []int{0, 1}) || b.counters.held.Load() != 0 {
		t.Errorf("resumed: %v were handled, %d held", b.handled, b.counters.held.Load())
	}
}

func TestRequestsInFlight(t *testing.T) {
	if n, known := requestsInFlight(nil); known {
		t.Errorf("of no disk: %d", n)
	}
	path := filepath.Join(t.TempDir(), "inflight")
	if err := os.WriteFile(path, []byte("       3       12\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if n, known := requestsInFlight(file); n != 15 || !known {
		t.Errorf("of 3 reads and 12 writes: %d, known %v", n, known)
	}
}
