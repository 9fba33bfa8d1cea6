package ublk

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
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
	if !slices.Equal(b.handled, []int{0}) || b.inService != 1 || b.counters.held.Load() != 2 || (&hold{d: b.dev}).isQuiet() {
		t.Errorf("held: %v were handled, %d are in service, %d held", b.handled, b.inService, b.counters.held.Load())
	}
	b.reqs[0].CompleteErrno(0)
	b.endTurn()
	if !(&hold{d: b.dev}).isQuiet() {
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

// inFlightOf returns an InFlight whose files have a text. The test can change them.
func inFlightOf(t *testing.T, count, counting string) *InFlight {
	t.Helper()
	var files []*os.File
	for _, text := range []string{count, counting} {
		path := filepath.Join(t.TempDir(), "attribute")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		file, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = file.Close() })
		files = append(files, file)
	}
	f, err := NewInFlight(files)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestInFlight(t *testing.T) {
	if n, known := (*InFlight)(nil).number(); known {
		t.Errorf("of no disk: %d", n)
	}
	f := inFlightOf(t, "       3       12\n", "1\n")
	if n, known := f.number(); n != 15 || !known || f.isOff() {
		t.Errorf("of 3 reads and 12 writes: %d, known %v, off %v", n, known, f.isOff())
	}
	if !inFlightOf(t, "       0        0\n", "0\n").isOff() {
		t.Error("a kernel that does not count is taken for one that does")
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if n, known := f.number(); known {
		t.Errorf("of a number that cannot be read: %d", n)
	}
}

// A hold waits for the requests that the kernel completes by itself. Kept flushes, which the
// kernel does not count, do not stand for them. Neither does a number that cannot be read.
func TestHoldWaitsForLinkedRequests(t *testing.T) {
	b := onBench(t, BufferCopy, "/dev/null")
	b.hold()
	for tag, op := range []Op{OpWrite, OpFlush, OpDiscard, OpFlush} {
		if err := b.deliver(tag, op, 0); err != nil {
			t.Fatal(err)
		}
	}
	b.endTurn()
	for count, want := range map[string]bool{"0 2": true, "0 3": false, "1 3": false, "none": false} {
		h := &hold{d: b.dev, inFlight: inFlightOf(t, count, "1\n"), linked: []bool{true}}
		if h.isQuiet() != want {
			t.Errorf("with %s reads and writes in flight, of which the queue keeps 2: quiet %v", count, !want)
		}
	}
	h := &hold{d: b.dev, linked: []bool{true}}
	if h.isQuiet() {
		t.Error("the device is quiet although nothing tells the number")
	}
	off := &hold{d: b.dev, inFlight: inFlightOf(t, "0 2", "0\n"), linked: []bool{true}}
	if off.wait(time.Now().Add(time.Minute)) || !off.uncounted {
		t.Error("a hold relies on a number although the kernel does not count")
	}
	off.linked[0] = false // the queue knows all of its requests
	if !off.wait(time.Now().Add(time.Minute)) {
		t.Error("a hold needs a number that it does not use")
	}
}
