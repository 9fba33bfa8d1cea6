package stack

import (
	"bytes"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ring"
	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// groupedRequest writes the second half of a chunk and the first half of the next one.
func groupedRequest(chunk uint64, value byte) ublktest.Request {
	return ublktest.Request{Op: ublk.OpWrite, StartSector: chunk*8 + 4, Sectors: 8, Data: bytes.Repeat([]byte{value}, 4096)}
}

// Two first writes whose chunks follow each other in the store are one write.
func TestFirstWritesAreOneWrite(t *testing.T) {
	dir := snapshotDir(t)
	var model []byte
	serve(t, dir, "0 512 snapshot $A $B P 8", Options{}, func(b *bed) {
		model = b.whole()
		for _, chunk := range []uint64{7, 20, 3} {
			req := groupedRequest(chunk, byte(chunk))
			r := b.Do(req)
			copy(model[req.StartSector*512:], req.Data)
			ops := map[uint8]int{}
			for _, sqe := range r.Entries {
				ops[sqe.Opcode]++
			}
			if r.Result != 4096 || ops[ring.IORING_OP_READ] != 2 || ops[ring.IORING_OP_WRITE] != 1 {
				t.Errorf("chunk %d: result %d, operations %v", chunk, r.Result, ops)
			}
		}
		b.compare(model)
	})
	serve(t, dir, "0 512 snapshot $A $B P 8", Options{}, func(b *bed) { b.compare(model) })
}

// If one of two such writes cannot be carried out, the other one is.
func TestOneOfGroupFails(t *testing.T) {
	if !ublktest.Alone(t) {
		return
	}
	dir := snapshotDir(t)
	var model []byte
	serve(t, dir, "0 512 snapshot $A $B P 8", Options{}, func(b *bed) {
		model = b.whole()
		req := groupedRequest(7, 0xaa)
		undo := ublktest.LimitFileSize(t, 3*4096) // the store's second data chunk cannot be written
		r := b.Do(req)
		undo()
		if r.Result != -int32(unix.EFBIG) {
			t.Errorf("result %d", r.Result)
		}
		copy(model[req.StartSector*512:][:2048], req.Data)
		b.compare(model)
		if used := b.stack.stores[0].Usage().Allocated; used != 4*8 {
			t.Errorf("%d sectors of the store are used", used)
		}
		b.must(req) // with the chunk that was given back
		copy(model[req.StartSector*512:], req.Data)
		if used := b.stack.stores[0].Usage().Allocated; used != 4*8 {
			t.Errorf("%d sectors of the store are used after the second try", used)
		}
		b.compare(model)
	})
	serve(t, dir, "0 512 snapshot $A $B P 8", Options{}, func(b *bed) { b.compare(model) })
}
