package stack

import (
	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/loop/internal/mapping"
	"github.com/ublk-loop/ublk-loop/transfer/verity"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// checker carries out the layers of reads if one of them is verity. It belongs to one queue.
type checker struct {
	*handler
	verifiers []*verity.Verifier // by number of the layer; nil for crypt
	checks    []check            // by tag
	slots     [hashSlots]hashSlot
	freeSlots int
	needSlot  tagList // requests that wait for a slot
	ready     tagList // requests that can go on
}

// check is the state of a read whose data has arrived.
type check struct {
	req   *ublk.Request
	level int
	walk  mapping.LayerWalk
	run   mapping.Run // what is left of the current run; it is empty before the first
	// path leads to the first block of the run, if started is set.
	path    verity.Path
	started bool
	again   bool // the block that is looked at has been read twice

	reading reading
	slot    int
	below   mapping.Below // where the operation reads
	offset  uint64
	memory  []byte
	next    int // tag in a list
}

// reading is what the operations of a check read.
type reading uint8

const (
	readingNothing reading = iota
	readingHash            // a hash block, into a slot
	readingData            // a data block, again
)

// newChecker returns the checker of a queue, or nil if no layer is verity.
func newChecker(h *handler, depth int) (*checker, error) {
	if h.stack.verities == 0 {
		return nil, nil
	}
	c := &checker{handler: h, checks: make([]check, depth), freeSlots: hashSlots, needSlot: noTags, ready: noTags}
	largest := uint32(0)
	for _, l := range h.stack.layers {
		var v *verity.Verifier
		if l.verity != nil {
			var err error
			if v, err = h.stack.newVerifier(l.verity); err != nil {
				return nil, err
			}
			largest = max(largest, l.verity.params.HashBlockSize)
		}
		c.verifiers = append(c.verifiers, v)
	}
	for i := range c.slots {
		memory, err := h.stack.newArena(int(largest))
		if err != nil {
			return nil, err
		}
		c.slots[i] = hashSlot{layer: none, memory: memory, waiting: noTags}
	}
	return c, nil
}

// begin starts with the layers of a read.
func (c *checker) begin(req *ublk.Request, r *request) {
	r.stage = stageCheck
	k := &c.checks[req.Tag()]
	k.req, k.level, k.run.Length, k.reading = req, c.levels, 0, readingNothing
	c.advance(req.Tag())
	c.goOn()
}

// goOn lets the requests go on that can. Each may make further ones ready. A request may find
// that it does not need the slot that it has waited for, so others get it then.
func (c *checker) goOn() {
	for {
		switch {
		case c.ready.first != none:
			c.advance(c.pop(&c.ready))
		case c.needSlot.first != none && c.freeSlots > 0:
			c.advance(c.pop(&c.needSlot))
		default:
			return
		}
	}
}

// advance goes on with a request until it waits or has ended.
func (c *checker) advance(tag int) {
	k, r := &c.checks[tag], &c.requests[tag]
	for {
		switch {
		case r.flying > 0:
			return
		case k.reading != readingNothing:
			c.arrived(k, r)
		case r.errno != 0, k.run.Length == 0 && !c.nextRun(k):
			k.req.Worked()
			k.req.CompleteErrno(r.errno)
			return
		default:
			if c.layer(k, r) {
				return
			}
		}
	}
}

// nextRun finds the next run, from the lowest level up. It reports whether there is one.
func (c *checker) nextRun(k *check) bool {
	for {
		if k.level < c.levels {
			var ok bool
			if k.run, ok = k.walk.Next(); ok {
				k.started = false
				return true
			}
		}
		if k.level == 0 {
			return false
		}
		k.level--
		k.walk = c.stack.plan.LayerWalk(k.level, k.req.Offset(), k.req.Bytes())
	}
}

// layer goes on with a run. It reports whether the request waits.
func (c *checker) layer(k *check, r *request) (waits bool) {
	l := &c.stack.layers[k.run.Layer]
	if l.transfer != nil {
		l.transfer.Decrypt(k.data(k.run.Length), k.run.Sector)
		k.run.Length = 0
		return false
	}
	for k.run.Length > 0 && r.errno == 0 && r.flying == 0 && k.reading == readingNothing {
		if c.block(k, r, l.verity) {
			return true
		}
	}
	return false
}

// data returns bytes of the request from the start of the run.
func (k *check) data(n uint64) []byte { return k.req.Data()[k.run.At:][:n] }

// block checks the first block of a run. It reports whether the request waits.
func (c *checker) block(k *check, r *request, l *verityLayer) (waits bool) {
	v, number := c.verifiers[k.run.Layer], k.run.Sector>>l.blockShift
	if l.once != nil && l.once.has(number) {
		k.pass(l)
		return false
	}
	if k.started {
		v.Resume(&k.path)
	} else {
		k.path, k.started, k.again = v.Start(number), true, false
	}
	if need, missing := v.Next(&k.path); missing {
		return c.readHash(k, r, l, need)
	}
	data := k.data(uint64(l.params.DataBlockSize))
	switch {
	case l.zero != nil && v.Wants(&k.path, l.zero):
		clear(data)
		k.pass(l)
	case v.CheckData(&k.path, data):
		if l.once != nil {
			l.once.add(number)
		}
		k.pass(l)
	case !k.again && !l.data.Checked():
		k.again = true
		c.fetch(k, r, readingData, l.data, k.run.Sector<<sectorShift, data)
	case l.wrong(false, number):
		r.fail(-int32(unix.EIO))
	default:
		k.pass(l)
	}
	return false
}

// pass goes on to the next block of a run.
func (k *check) pass(l *verityLayer) {
	size := uint64(l.params.DataBlockSize)
	k.run.At, k.run.Sector, k.run.Length, k.started = k.run.At+size, k.run.Sector+size>>sectorShift, k.run.Length-size, false
}
