package stack

import (
	"math"

	"github.com/ublk-loop/ublk-loop/loop/internal/mapping"
	"github.com/ublk-loop/ublk-loop/ring"
	"github.com/ublk-loop/ublk-loop/transfer/verity"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// This file reads hash blocks ahead of a sequential reader: of the lowest level, which has almost
// all of them. A read that needs a hash block reads those behind it with the same operation, and a
// read that comes near the end of what was read ahead takes the next ones along with its data. A
// reader that jumps gets one hash block at a time.

// aheadBytes is the size of a slot, and the most that is read ahead with one operation.
const aheadBytes = 64 << 10

// stream is the place up to which hash blocks of a layer were read.
type stream struct {
	next uint64 // number of the hash block behind the last one
	size int    // blocks of the last read; 0 before the first
}

// noStream is the number of no hash block.
const noStream = math.MaxUint64

// window returns how many hash blocks to read from a block on: four times as many as the last
// time, if it is the next one.
func (c *checker) window(layer int, l *verityLayer, need verity.HashBlock) int {
	if need.Level > 0 {
		return 1
	}
	s := &c.streams[layer]
	if need.Number == s.next {
		s.size = min(4*s.size, l.mostAhead())
		c.streaming = true
	} else {
		s.size = 1
	}
	n := int(min(uint64(s.size), l.Tree.HashBlocks()-need.Number))
	s.next = need.Number + uint64(n)
	return n
}

// mostAhead returns how many hash blocks are read at once.
func (l *verityLayer) mostAhead() int { return max(1, aheadBytes/int(l.params.HashBlockSize)) }

// readAhead reads the hash blocks behind those of a stream together with the data of a read that
// needs the second half of them. So the next reads don't wait for them.
func (c *checker) readAhead(req *ublk.Request, r *request) {
	if !c.streaming || c.freeSlots == 0 || !c.mayTake(r) || c.requestOrigins != nil {
		return
	}
	walk := c.stack.plan.LayerWalk(0, req.Offset(), req.Bytes(), nil)
	run, ok := walk.Next()
	if !ok || c.verifiers[run.Layer] == nil {
		return
	}
	l, s := c.stack.layers[run.Layer].verity, &c.streams[run.Layer]
	if s.size <= 1 { // a jump; or nothing was read, as always for a layer without a tree
		return
	}
	last := l.Tree.Lowest((run.Sector + run.Length>>sectorShift - 1) >> l.blockShift).Number
	if last >= s.next || s.next-last > uint64(s.size+1)/2 || s.next >= l.Tree.HashBlocks() || c.find(run.Layer, s.next) != none {
		return
	}
	size := uint64(l.params.HashBlockSize)
	count := min(uint64(l.mostAhead()), l.Tree.HashBlocks()-s.next)
	pieces := l.hash.Walk(l.Tree.Start()+s.next*size, count*size)
	piece, ok := pieces.Next()
	if !ok || piece.Kind != mapping.Device || piece.Length != count*size || l.hash.Levels() > 0 {
		return
	}
	slot := c.takeSlot(run.Layer, s.next, int(count))
	number, p := c.take(req, r)
	*p = part{file: c.fileOf(piece.Device), offset: piece.Offset, length: piece.Length, slot: slot + 1}
	s.next, s.size = s.next+count, int(count)
	c.sendAhead(req, number, p)
}

// sendAhead sends the read of a part that reads ahead.
func (c *checker) sendAhead(req *ublk.Request, number int, p *part) {
	sqe := req.PartSQE(number)
	sqe.PrepRead(p.file.File.File, ring.Address(c.slots[p.slot-1].memory)+p.at, uint32(p.length), p.offset)
	p.setWorker(sqe)
}

// aheadDone handles the result of a part that reads ahead. It reports whether the part has ended.
// After an error the blocks are read again when they are needed.
func (c *checker) aheadDone(req *ublk.Request, number int, p *part, res int32) bool {
	more, errno := p.advance(res)
	if more {
		req.Retried()
		c.sendAhead(req, number, p)
		return false
	}
	c.release(p.slot-1, errno == 0)
	c.goOn()
	return true
}
