package ublk_test

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ring"
	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// crowd is a handler that fills the ring with entries that do nothing, except for some room, and
// then forwards a request to no file.
type crowd struct {
	q    *ublk.Queue
	room int // free entries of the ring
}

func (c *crowd) NewHandler(q *ublk.Queue) (ublk.Handler, error) {
	c.q = q
	return c, nil
}

func (c *crowd) Handle(req *ublk.Request) {
	for c.q.Ring().SQSpace() > c.room+1 {
		req.SQE().PrepNop()
	}
	req.ForwardAndComplete(ublk.File{}, 0) // fails with EBADF
}

func (c *crowd) Done(*ublk.Request, int32) {}

// A commit that is linked to an operation is in the same submit. Otherwise the kernel would
// carry out the commit even if the operation fails.
func TestForwardAndCompleteNeedsRoom(t *testing.T) {
	for room, linked := range []bool{false, true, true} {
		d := ublktest.NewDisk(t, 1, &crowd{room: room})
		for range 3 {
			r := d.Do(ublktest.Request{Op: ublk.OpRead, Sectors: 1})
			if r.Result != -int32(unix.EBADF) {
				t.Errorf("room for %d: result %d of an operation that fails, want EBADF", room, r.Result)
			}
			if got := r.Entries[len(r.Entries)-1].Flags&ring.IOSQE_IO_LINK != 0; got != (linked && linkable(t)) {
				t.Errorf("room for %d: linked %v, want %v", room, got, linked)
			}
		}
		if n := d.Stats().InService; n < 0 || n > 1 {
			t.Errorf("room for %d: %d of one request are in service", room, n)
		}
	}
}

// linkable reports whether the kernel keeps the content of a linked command.
func linkable(t *testing.T) bool {
	t.Helper()
	r, err := ring.New(ring.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	return r.Features()&ring.IORING_FEAT_NO_IOWAIT != 0
}
