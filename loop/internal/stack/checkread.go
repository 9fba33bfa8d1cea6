package stack

import (
	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/loop/internal/mapping"
	"github.com/ublk-loop/ublk-loop/ring"
	"github.com/ublk-loop/ublk-loop/transfer/verity"
)

// readHash reads a hash block that the path of a check needs, unless it was read ahead. It reports
// whether the check waits for another one.
func (c *checker) readHash(k *check, l *verityLayer, need verity.HashBlock) (waits bool) {
	layer, count := k.run.Layer, 1
	if k.slot = c.find(layer, need.Number); k.slot != none {
		s := &c.slots[k.slot]
		if s.reading {
			c.push(&s.waiting, c.numberOf(k))
			return true
		}
		size := uint64(l.params.HashBlockSize)
		if c.verifiers[layer].AddHash(&k.path, s.memory[(need.Number-s.block)*size:][:size]) {
			return false
		}
		k.readTwice = true // ahead, and from now on alone
		c.reuse(k.slot, layer, need.Number, 1)
	} else {
		count = c.window(layer, l, need)
		if k.slot = c.takeSlot(layer, need.Number, count); k.slot == none {
			c.push(&c.needSlot, c.numberOf(k))
			return true
		}
	}
	c.fetch(k, readingHash, l.hash, need.Offset, c.slots[k.slot].memory[:count*int(l.params.HashBlockSize)])
	return false
}

// fetch starts to read a range below a layer into memory.
func (c *checker) fetch(k *check, what reading, below mapping.Below, offset uint64, memory []byte) {
	k.reading, k.below, k.offset, k.memory = what, below, offset, memory
	k.rest = below.Walk(offset, uint64(len(memory)))
	c.send(k)
}

// send starts as many pieces of a check's read as can be in flight: one if the check is that
// of a part.
func (c *checker) send(k *check) {
	for c.canRead(k) {
		piece, ok := k.rest.Next()
		if !ok {
			return
		}
		switch piece.Kind {
		case mapping.Error:
			k.fail(-int32(unix.EIO))
		case mapping.Zero:
			clear(k.memory[piece.At:][:piece.Length])
		default:
			number, p := c.takePart(k)
			*p = part{file: c.fileOf(piece.Device), offset: piece.Offset, at: piece.At, length: piece.Length}
			c.sendPart(k, number, p)
		}
	}
}

// sendPart sends the read of a part of a check.
func (c *checker) sendPart(k *check, number int, p *part) {
	sqe := k.req.PartSQE(number)
	sqe.PrepRead(p.file.File.File, ring.Address(k.memory)+p.at, uint32(p.length), p.offset)
	p.setWorker(sqe)
}

// readEnded goes on when a part of a check's read has ended.
func (c *checker) readEnded(k *check) {
	c.send(k)
	if !c.isReading(k) {
		c.advance(c.numberOf(k))
		c.goOn()
	}
}

// arrived handles what a check has read.
func (c *checker) arrived(k *check) {
	what := k.reading
	k.reading = readingNothing
	if k.errno == 0 {
		c.decryptBelow(k)
	}
	if what == readingHash {
		c.hashArrived(k, c.stack.layers[k.run.Layer].verity)
	}
}

// hashArrived checks a hash block. The block is read once more, alone, if it is wrong, or if a
// block that was read ahead can be the reason of an error.
func (c *checker) hashArrived(k *check, l *verityLayer) {
	v, s := c.verifiers[k.run.Layer], &c.slots[k.slot]
	block, keep := k.memory[:l.params.HashBlockSize], false
	switch {
	case k.errno != 0 && s.count > 1:
		c.forgive(k)
		c.fetchAlone(k, l, block)
		return
	case k.errno != 0:
	case v.AddHash(&k.path, block):
		k.readTwice, keep = false, s.count > 1
	case !k.readTwice:
		k.readTwice = true
		c.fetchAlone(k, l, block)
		return
	case l.wrong(true, s.block):
		k.fail(-int32(unix.EIO))
	default:
		v.TakeHash(&k.path, block)
		k.readTwice = false
	}
	c.release(k.slot, keep)
}

// fetchAlone reads the first hash block of a slot.
func (c *checker) fetchAlone(k *check, l *verityLayer, block []byte) {
	c.slots[k.slot].count = 1
	c.streams[k.run.Layer] = stream{next: noStream, size: 1}
	c.fetch(k, readingHash, l.hash, k.offset, block)
}

// forgive forgets the error of a read.
func (c *checker) forgive(k *check) {
	k.errno = 0
	if k.write == nil {
		c.requests[k.req.Tag()].errno = 0
	}
}

// decryptBelow transforms what was read as the layers below say, from the lowest up.
func (c *checker) decryptBelow(k *check) {
	for level := k.below.Levels() - 1; level >= 0; level-- {
		walk := k.below.LayerWalk(level, k.offset, uint64(len(k.memory)), nil)
		for run, ok := walk.Next(); ok; run, ok = walk.Next() {
			c.stack.layers[run.Layer].transfer.Decrypt(k.memory[run.At:run.At+run.Length], run.Sector)
		}
	}
}
