package stack

import (
	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/loop/internal/mapping"
	"github.com/ublk-loop/ublk-loop/transfer/verity"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// checker carries out the layers of reads if one of them is verity, or if a snapshot has layers
// in its origin. It belongs to one queue.
//
// A check has a number: the tag of its read, or behind all tags the number of the first write
// whose copy is checked.
type checker struct {
	*handler
	verifiers []*verity.Verifier // by number of the layer; nil for crypt
	checks    []check            // by number
	slots     [hashSlots]hashSlot
	freeSlots int      // slots that are not being read
	fills     uint64   // slots that were filled
	streams   []stream // by number of the layer
	streaming bool     // whether one of them has read ahead
	needSlot  list     // checks that wait for a slot
	ready     list     // checks that can go on
}

// check is the state of a read, or of a copy for a first write, whose data has arrived.
type check struct {
	req   *ublk.Request
	write *firstWrite // nil for a read
	errno int32
	level int               // that is carried out; the lowest level has the largest number
	walk  mapping.LayerWalk // the runs of the level
	bytes []byte            // the data
	run   mapping.Run       // what is left of the current run; it is empty before the first
	// path leads to the first block of the run, if started is set.
	path      verity.Path
	started   bool
	readTwice bool // the block that is looked at has been read twice

	// What is read, to where, and what is left of that.
	reading reading
	slot    int // of a hash block
	below   mapping.Below
	offset  uint64
	memory  []byte
	rest    mapping.Walk

	next int // number in a list
}

// reading is what the operations of a check read.
type reading uint8

const (
	readingNothing reading = iota
	readingHash            // a hash block, into a slot
	readingData            // a data block, again
)

// newChecker returns the checker of a queue, or nil if it needs none.
func newChecker(h *handler, depth int) (*checker, error) {
	covered := h.stack.plan.Covered()
	if h.stack.verities == 0 && !covered {
		return nil, nil
	}
	c := &checker{handler: h, freeSlots: hashSlots, needSlot: emptyList, ready: emptyList}
	n := depth
	if covered {
		n += len(h.writes)
	}
	c.checks = make([]check, n)
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
		c.streams = append(c.streams, stream{next: noStream})
	}
	for i := range c.slots {
		memory, err := h.stack.newArena(max(int(largest), aheadBytes))
		if err != nil {
			return nil, err
		}
		c.slots[i] = hashSlot{layer: none, memory: memory, waiting: emptyList}
	}
	return c, nil
}

// begin starts with the layers of a read.
func (c *checker) begin(req *ublk.Request, r *request) {
	r.stage = stageCheck
	k := &c.checks[req.Tag()]
	k.start(req, nil, req.Data(), c.levels)
	c.advance(req.Tag())
	c.goOn()
}

// start makes the state ready.
func (k *check) start(req *ublk.Request, w *firstWrite, data []byte, levels int) {
	k.req, k.write, k.bytes, k.errno = req, w, data, 0
	k.level, k.walk, k.run.Length, k.reading = levels, mapping.LayerWalk{}, 0, readingNothing
}

// goOn lets the checks go on that can. Each may make further ones ready. A check may find
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

// advance goes on with a check until it waits or has ended.
func (c *checker) advance(number int) {
	k := &c.checks[number]
	for {
		switch {
		case c.isReading(k):
			return
		case k.reading != readingNothing:
			c.arrived(k)
		case k.errno != 0, k.run.Length == 0 && !c.nextRun(k):
			c.end(k)
			return
		default:
			if c.applyLayer(k) {
				return
			}
		}
	}
}

// end answers a read, or goes on with a first write.
func (c *checker) end(k *check) {
	k.req.Worked()
	if k.write == nil {
		k.req.CompleteErrno(k.errno)
		return
	}
	c.copyChecked(k)
}

// fail ends a check with an error.
func (k *check) fail(errno int32) {
	if k.errno == 0 {
		k.errno = errno
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
		if w := k.write; w != nil {
			k.walk = c.originLayers(w, k.level)
		} else {
			k.walk = c.stack.plan.LayerWalk(k.level, k.req.Offset(), k.req.Bytes(), c.originsOf(k.req))
		}
	}
}

// applyLayer decrypts a run, or checks its blocks. It reports whether the check waits.
func (c *checker) applyLayer(k *check) (waits bool) {
	l := &c.stack.layers[k.run.Layer]
	if l.transfer != nil {
		l.transfer.Decrypt(k.data(k.run.Length), k.run.Sector)
		k.run.Length = 0
		return false
	}
	for k.run.Length > 0 && k.errno == 0 && k.reading == readingNothing {
		if c.checkBlock(k, l.verity) {
			return true
		}
	}
	return false
}

// data returns bytes from the start of the run.
func (k *check) data(n uint64) []byte { return k.bytes[k.run.At:][:n] }

// checkBlock checks the first block of a run. It reports whether the check waits.
func (c *checker) checkBlock(k *check, l *verityLayer) (waits bool) {
	v, number := c.verifiers[k.run.Layer], k.run.Sector>>l.blockShift
	if l.once != nil && l.once.has(number) {
		k.pass(l)
		return false
	}
	if k.started {
		v.Resume(&k.path)
	} else {
		k.path, k.started, k.readTwice = v.Start(number), true, false
	}
	if need, missing := v.Next(&k.path); missing {
		return c.readHash(k, l, need)
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
	case !k.readTwice && l.data.IsPlain():
		k.readTwice = true
		c.fetch(k, readingData, l.data, k.run.Sector<<sectorShift, data)
	case l.wrong(false, number):
		k.fail(-int32(unix.EIO))
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
