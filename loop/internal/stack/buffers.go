package stack

import (
	"fmt"
	"io"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/loop/internal/pages"
)

// copier has what a queue needs for first writes.
type copier struct {
	writes  []firstWrite // like handler.parts; nil if no snapshot can be written to
	buffers *buffers
	group   group // the last one
}

// buffers are for the copies of first writes. The queues of a thread share them, of all its devices
// whose stores have chunks of this size. Only the thread uses them, so they need no lock.
//
// A first write that finds none waits for one. It gets one because those who have one never wait for
// a second one, and never for a request of a device whose queues are on this thread.
type buffers struct {
	memory      []byte       // of the buffers, and behind them that of the vectors
	vectors     []unix.Iovec // maxGroup for each buffer
	size        int
	free        []int       // numbers of buffers
	first, last *firstWrite // list of those that wait
}

// The memory for copies of a thread: of one queue, and of a thread that many queues share.
const (
	ownCopyBytes    = 1 << 20
	sharedCopyBytes = 256 << 10
)

// bufferSize is the key of buffers in ublk.Queue.Shared.
type bufferSize int

// newBuffers returns buffers of size bytes, a chunk, for a thread with room for a number of queues.
func newBuffers(size, queues int) (*buffers, error) {
	total := ownCopyBytes
	if queues > 1 {
		total = sharedCopyBytes
	}
	b := &buffers{size: size}
	n := max(total/size, 1)
	var err error
	if b.memory, err = pages.Map(n*size + pages.Size[unix.Iovec](n*maxGroup)); err != nil {
		return nil, fmt.Errorf("%d buffers: %w", n, err)
	}
	b.vectors = pages.Slice[unix.Iovec](b.memory[n*size:], n*maxGroup)
	for i := range n {
		b.free = append(b.free, i)
	}
	return b, nil
}

// Close frees the memory.
func (b *buffers) Close() error { return unix.Munmap(b.memory) }

// chunkToCopy returns the size of the largest chunk of the stores that are written to, 0 if there are none.
func (s *Stack) chunkToCopy() (size int) {
	for _, store := range s.storeOf {
		if store != nil {
			size = max(size, int(store.Layout.ChunkSize()))
		}
	}
	return size
}

// makeCopier makes the state of first writes to chunks of at most some size, on the handler's thread.
func (h *handler) makeCopier(size int) error {
	if size == 0 {
		return nil
	}
	h.writes = make([]firstWrite, len(h.parts))
	shared, err := h.queue.Shared(bufferSize(size), func(queues int) (io.Closer, error) { return newBuffers(size, queues) })
	if err != nil {
		return err
	}
	h.buffers, _ = shared.(*buffers)
	return nil
}

// take gives a buffer to a write, or makes the write wait for one.
func (b *buffers) take(w *firstWrite) bool {
	n := len(b.free)
	if n > 0 {
		w.buffer = b.free[n-1] + 1
		b.free = b.free[:n-1]
		return true
	}
	w.next = nil
	if b.first == nil {
		b.first = w
	} else {
		b.last.next = w
	}
	b.last = w
	return false
}

// giveBack takes the buffer of a write, and gives it to the first one that waits, which it returns.
func (b *buffers) giveBack(w *firstWrite) (next *firstWrite) {
	buffer := w.buffer
	if w.buffer = 0; buffer == 0 {
		return nil
	}
	if next = b.first; next == nil {
		b.free = append(b.free, buffer-1)
		return nil
	}
	b.first, next.next = next.next, nil
	next.buffer = buffer
	return next
}

// releaseBuffer gives the buffer of a write back.
func (h *handler) releaseBuffer(w *firstWrite) {
	switch next := h.buffers.giveBack(w); {
	case next == nil:
	case next.owner != h:
		// The queue of the other handler has a turn of its own.
		next.req.AsyncPart(next.number).Done(0)
	default:
		r := &h.requests[next.req.Tag()]
		if h.beginCopy(r, next) {
			h.partEnded(next.req, r, next.number)
		}
	}
}

func (h *handler) bufferOf(w *firstWrite) []byte {
	b := h.buffers
	return b.memory[(w.buffer-1)*b.size:][:b.size]
}

// vectorsOf returns the memory for the vectors of a group, whose first member has a buffer.
func (b *buffers) vectorsOf(first *firstWrite) []unix.Iovec {
	return b.vectors[(first.buffer-1)*maxGroup:][:maxGroup]
}
