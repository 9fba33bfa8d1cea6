package ublk_test

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// poster gives each sector of a request to another goroutine, as a part whose result is its
// number. The first part is completed by the handler itself.
type poster struct {
	left []int // by tag: parts without a result
	seen []int // by tag: sum of the results
}

func (p *poster) NewHandler(q *ublk.Queue) (ublk.Handler, error) {
	p.left, p.seen = make([]int, q.Depth()), make([]int, q.Depth())
	return p, nil
}

func (p *poster) Handle(req *ublk.Request) {
	n := int(req.Sectors)
	p.left[req.Tag()], p.seen[req.Tag()] = n, 0
	for part := range n {
		async := req.AsyncPart(part)
		if part == 0 {
			async.Done(0)
			continue
		}
		go async.Done(int32(part))
	}
}

func (p *poster) Done(req *ublk.Request, _ int32) { req.Complete(unix.EXFULL) }

func (p *poster) PartDone(req *ublk.Request, part int, result int32) {
	if int(result) != part {
		p.seen[req.Tag()] = -1 << 20
	}
	p.seen[req.Tag()] += part
	if p.left[req.Tag()]--; p.left[req.Tag()] > 0 {
		return
	}
	n := int(req.Sectors)
	if p.seen[req.Tag()] != n*(n-1)/2 {
		req.Complete(unix.EBADE)
		return
	}
	req.Complete(nil)
}

// Each part that another goroutine completes ends once, with its own result.
func TestAsyncParts(t *testing.T) {
	const parts, depth, rounds = 12, 4, 500
	disk := ublktest.NewDiskWith(t, ublk.Options{Depth: depth, ExtraParts: depth * (parts - 1)}, &poster{})
	for i := range rounds {
		var waits []func() ublktest.Reply
		for n := range depth {
			waits = append(waits, disk.Begin(ublktest.Request{Op: ublk.OpRead, Sectors: uint32(1 + (i+n)%parts)}))
		}
		for n, wait := range waits {
			if r := wait(); r.Result != int32(1+(i+n)%parts)*512 {
				t.Fatalf("round %d: result %d", i, r.Result)
			}
		}
	}
}
