package ublk

import (
	"testing"

	"golang.org/x/sys/unix"
)

// A thread registers and removes buffers in small steps, so that it serves its other queues
// in between. It does not make their pages.
func TestBuffersInSteps(t *testing.T) {
	const depth, size = 8, 256 << 10
	b := onBench(t, BufferCopy, "/dev/null")
	// With huge pages there are few faults.
	if err := unix.Prctl(unix.PR_SET_THP_DISABLE, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Prctl(unix.PR_SET_THP_DISABLE, 0, 0, 0, 0) }()
	if err := b.bufs.unregister(b.thread.ring, here); err != nil {
		t.Fatal(err)
	}
	if err := b.thread.ring.UnregisterBuffers(); err != nil {
		t.Fatal(err)
	}
	if err := b.thread.ring.RegisterBuffersSparse(depth); err != nil {
		t.Fatal(err)
	}
	bufs, err := newBuffers(BufferCopy, 0, depth, size, "")
	if err != nil {
		t.Fatal(err)
	}
	defer bufs.free()
	steps, before := 0, pageFaults(t)
	count := func(f func() error) error { steps++; return f() }
	if err := bufs.register(b.thread.ring, count); err != nil {
		t.Fatal(err)
	}
	pages := int64(depth * size / unix.Getpagesize())
	if faults := pageFaults(t) - before; faults > pages/10 { // other memory of this thread has a few
		t.Errorf("%d page faults on the thread that registers buffers of %d pages", faults, pages)
	}
	if err := bufs.unregister(b.thread.ring, count); err != nil {
		t.Fatal(err)
	}
	if want := 2 * depth * size / registerBytes; steps != want {
		t.Errorf("%d steps, want %d", steps, want)
	}
}

// pageFaults returns the number of pages that this thread has made.
func pageFaults(t *testing.T) int64 {
	t.Helper()
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &usage); err != nil {
		t.Fatal(err)
	}
	return usage.Minflt
}
