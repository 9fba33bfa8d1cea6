package stack

import (
	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/loop/internal/mapping"
	"github.com/ublk-loop/ublk-loop/ring"
	"github.com/ublk-loop/ublk-loop/transfer/verity"
)

// readHash reads a hash block that the path of a check needs. It reports whether the check
// waits for another one.
func (c *checker) readHash(k *check, l *verityLayer, need verity.HashBlock) (waits bool) {
	if k.slot = c.slotFor(c.numberOf(k), k.run.Layer, need.Number); k.slot == none {
		return true
	}
	c.fetch(k, readingHash, l.hash, need.Offset, c.slots[k.slot].memory[:l.params.HashBlockSize])
	return false
}

// fetch starts to read a range below a layer into memory.
func (c *checker) fetch(k *check, what reading, below mapping.Below, offset uint64, memory []byte) {
	k.reading, k.below, k.offset, k.memory = what, below, offset, memory
	*c.walkOf(k) = below.Walk(offset, uint64(len(memory)))
	c.send(k)
}

// send starts as many pieces of a check's read as can be in flight: one if the check is that
// of a part.
func (c *checker) send(k *check) {
	for c.canRead(k) {
		piece, ok := c.walkOf(k).Next()
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
			*p = part{file: &c.files[c.stack.backingOf[piece.Device]], offset: piece.Offset, at: piece.At, length: piece.Length}
			c.sendPart(k, number, p)
		}
	}
}

// sendPart sends the read of a part of a check.
func (c *checker) sendPart(k *check, number int, p *part) {
	sqe := k.req.PartSQE(number)
	sqe.PrepRead(p.file.File.File, ring.Address(k.memory)+p.at, uint32(p.length), p.offset)
	if p.onWorker {
		sqe.Flags |= ring.IOSQE_ASYNC
	}
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

// hashArrived checks a hash block. The block is read once more if it is wrong.
func (c *checker) hashArrived(k *check, l *verityLayer) {
	v := c.verifiers[k.run.Layer]
	switch {
	case k.errno != 0:
	case v.AddHash(&k.path, k.memory):
		k.again = false
	case !k.again:
		k.again = true
		c.fetch(k, readingHash, l.hash, k.offset, k.memory)
		return
	case l.wrong(true, c.slots[k.slot].block):
		k.fail(-int32(unix.EIO))
	default:
		v.TakeHash(&k.path, k.memory)
		k.again = false
	}
	c.release(k.slot)
}

// decryptBelow transforms what was read as the layers below say, from the lowest up.
func (c *checker) decryptBelow(k *check) {
	for level := k.below.Levels() - 1; level >= 0; level-- {
		for walk := k.below.LayerWalk(level, k.offset, uint64(len(k.memory)), nil); ; {
			run, ok := walk.Next()
			if !ok {
				break
			}
			c.stack.layers[run.Layer].transfer.Decrypt(k.memory[run.At:run.At+run.Length], run.Sector)
		}
	}
}
