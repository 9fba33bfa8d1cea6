package loop

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk"
)

// A cachingDisk is a disk in memory with a volatile write cache. What it carries out is in a history
// that it can share with other disks, so that a test knows the order.
type cachingDisk struct {
	*diskHistory
	path    string
	content []byte
}

// diskHistory has the writes and flushes of disks.
type diskHistory struct {
	mu     sync.Mutex
	steps  []diskStep
	after  func(steps int) // a disk calls it after each step, and completes the request then; can be nil
	gate   chan struct{}   // writes from a place on wait until it is closed, if it is not nil
	from   uint64
	atGate int // writes that have come to a gate
}

// diskStep is a write, a flush, or a mark of the test.
type diskStep struct {
	disk  *cachingDisk // nil for a mark
	at    uint64       // in bytes
	data  []byte       // nil for a flush
	flush bool         // also for a write with FUA
	mark  int
}

// newCachingDisk makes a disk, which ends with the test.
func newCachingDisk(t *testing.T, ctl *ublk.Control, h *diskHistory, content []byte) *cachingDisk {
	t.Helper()
	d := &cachingDisk{diskHistory: h, content: content}
	dev, err := ctl.Add(ublk.Options{Queues: 1, NoPartScan: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := dev.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := dev.SetParams(ublk.Params{Size: uint64(len(content)), VolatileCache: true, FUA: true}); err != nil {
		t.Fatal(err)
	}
	if err := dev.Start(ublk.HandlerFunc(d.handle)); err != nil {
		t.Fatal(err)
	}
	d.path = dev.BlockPath()
	return d
}

// handle carries out a request on the thread of the disk's queue.
func (d *cachingDisk) handle(req *ublk.Request) {
	d.mu.Lock()
	defer d.mu.Unlock()
	at := req.Offset()
	switch req.Op {
	case ublk.OpRead:
		copy(req.Data(), d.content[at:])
	case ublk.OpWrite:
		if d.gate != nil && at >= d.from {
			d.atGate++
			go d.writeLater(req.Async(), d.gate) // ends when the gate is opened
			return
		}
		d.write(at, req.Data(), req.Flags)
	case ublk.OpFlush:
		d.add(diskStep{disk: d, flush: true})
	default:
		req.CompleteErrno(int32(unix.EOPNOTSUPP))
		return
	}
	req.Complete(nil)
}

// write carries out a write. The caller holds the lock.
func (d *cachingDisk) write(at uint64, data []byte, flags ublk.Flags) {
	copy(d.content[at:], data)
	d.add(diskStep{disk: d, at: at, data: bytes.Clone(data), flush: flags&ublk.FlagFUA != 0})
}

// writeLater carries out a write when a gate is opened.
func (d *cachingDisk) writeLater(req ublk.AsyncRequest, gate <-chan struct{}) {
	<-gate
	d.mu.Lock()
	defer d.mu.Unlock()
	d.write(req.Offset(), req.Data(), req.Flags)
	req.Complete(nil)
}

// closeGate makes writes from a place on wait until open is called.
func (h *diskHistory) closeGate(from uint64) (open func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	gate := make(chan struct{})
	h.gate, h.from, h.atGate = gate, from, 0
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.gate = nil
		close(gate)
	}
}

// isAtGate reports whether a write waits.
func (h *diskHistory) isAtGate() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.atGate > 0
}

// isClosed reports whether writes wait.
func (h *diskHistory) isClosed() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.gate != nil
}

// add adds a step. The caller holds the lock.
func (h *diskHistory) add(s diskStep) {
	h.steps = append(h.steps, s)
	if h.after != nil && s.disk != nil {
		h.after(len(h.steps))
	}
}

// mark adds a mark.
func (h *diskHistory) mark(n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.add(diskStep{mark: n})
}

// restore gives a disk that is not open other content, and forgets all steps. after is called from
// then on.
func (h *diskHistory) restore(after func(int), disks []*cachingDisk, contents [][]byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.steps, h.after = nil, after
	for i, d := range disks {
		copy(d.content, contents[i])
	}
}

// now returns the content of a disk.
func (d *cachingDisk) now() []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	return bytes.Clone(d.content)
}

// cutDisk is the medium of a disk, and the cache that a power cut empties.
type cutDisk struct {
	medium []byte
	cache  []diskStep
	sector int // which a power cut leaves whole; 0 for 512 bytes
}

// apply applies a step of the disk.
func (c *cutDisk) apply(s diskStep) {
	switch {
	case s.data != nil:
		c.cache = append(c.cache, s)
	default:
		for _, w := range c.cache {
			copy(c.medium[w.at:], w.data)
		}
		c.cache = c.cache[:0]
	}
}

// unflushed returns the number of writes that a power cut can lose.
func (c *cutDisk) unflushed() (n int) {
	for _, w := range c.cache {
		if !w.flush {
			n++
		}
	}
	return n
}

// cut returns what is on the disk after a power cut: each sector in the cache is written or not.
func (c *cutDisk) cut() []byte {
	content := bytes.Clone(c.medium)
	for _, w := range c.cache {
		for part := range slices.Chunk(w.data, max(c.sector, 512)) {
			if w.flush || rand.IntN(2) == 0 {
				copy(content[w.at:], part)
			}
			w.at += uint64(len(part))
		}
	}
	return content
}
