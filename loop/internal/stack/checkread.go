package stack

import (
	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/loop/internal/mapping"
	"github.com/ublk-loop/ublk-loop/ring"
	"github.com/ublk-loop/ublk-loop/transfer/verity"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// readHash reads a hash block that the path of a check needs. It reports whether the request
// waits for another one.
func (c *checker) readHash(k *check, r *request, l *verityLayer, need verity.HashBlock) (waits bool) {
	if k.slot = c.slotFor(k.req.Tag(), k.run.Layer, need.Number); k.slot == none {
		return true
	}
	c.fetch(k, r, readingHash, l.hash, need.Offset, c.slots[k.slot].memory[:l.params.HashBlockSize])
	return false
}

// fetch starts to read a range below a layer into memory.
func (c *checker) fetch(k *check, r *request, what reading, below mapping.Below, offset uint64, memory []byte) {
	k.reading, k.below, k.offset, k.memory = what, below, offset, memory
	r.walk = below.Walk(offset, uint64(len(memory)))
	c.send(k.req, r)
}

// send starts as many pieces of a check's read as can be in flight.
func (c *checker) send(req *ublk.Request, r *request) {
	k := &c.checks[req.Tag()]
	for r.free != 0 {
		piece, ok := r.walk.Next()
		if !ok {
			return
		}
		switch piece.Kind {
		case mapping.Error:
			r.fail(-int32(unix.EIO))
		case mapping.Zero:
			clear(k.memory[piece.At:][:piece.Length])
		default:
			number, p := c.take(req, r)
			*p = part{file: &c.files[c.stack.backingOf[piece.Device]], offset: piece.Offset, at: piece.At, length: piece.Length}
			c.sendPart(req, number, p)
		}
	}
}

// sendPart sends the read of a part of a check.
func (c *checker) sendPart(req *ublk.Request, number int, p *part) {
	sqe := req.PartSQE(number)
	sqe.PrepRead(p.file.File.File, ring.Address(c.checks[req.Tag()].memory)+p.at, uint32(p.length), p.offset)
	if p.onWorker {
		sqe.Flags |= ring.IOSQE_ASYNC
	}
}

// readEnded goes on when a part of a check's read has ended.
func (c *checker) readEnded(req *ublk.Request, r *request) {
	c.send(req, r)
	if r.flying == 0 {
		c.advance(req.Tag())
		c.goOn()
	}
}

// arrived handles what a check has read.
func (c *checker) arrived(k *check, r *request) {
	what := k.reading
	k.reading = readingNothing
	if r.errno == 0 {
		c.decryptBelow(k)
	}
	if what == readingHash {
		c.hashArrived(k, r, c.stack.layers[k.run.Layer].verity)
	}
}

// hashArrived checks a hash block. The block is read once more if it is wrong.
func (c *checker) hashArrived(k *check, r *request, l *verityLayer) {
	v := c.verifiers[k.run.Layer]
	switch {
	case r.errno != 0:
	case v.AddHash(&k.path, k.memory):
		k.again = false
	case !k.again:
		k.again = true
		c.fetch(k, r, readingHash, l.hash, k.offset, k.memory)
		return
	case l.wrong(true, c.slots[k.slot].block):
		r.fail(-int32(unix.EIO))
	default:
		v.TakeHash(&k.path, k.memory)
		k.again = false
	}
	c.release(k.slot)
}

// decryptBelow transforms what was read as the layers below say, from the lowest up.
func (c *checker) decryptBelow(k *check) {
	for level := k.below.Levels() - 1; level >= 0; level-- {
		for walk := k.below.LayerWalk(level, k.offset, uint64(len(k.memory))); ; {
			run, ok := walk.Next()
			if !ok {
				break
			}
			c.stack.layers[run.Layer].transfer.Decrypt(k.memory[run.At:run.At+run.Length], run.Sector)
		}
	}
}
