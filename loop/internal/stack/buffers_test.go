package stack

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// A thread has a bounded number of buffers. The first writes that find none get one in their order.
func TestBuffers(t *testing.T) {
	for _, tt := range []struct{ size, queues, want int }{
		{4 << 10, 1, 256}, {64 << 10, 1, 16}, {64 << 10, 2, 4}, {64 << 10, 100, 4}, {1 << 20, 1, 1}, {1 << 20, 100, 1},
	} {
		b, err := newBuffers(tt.size, tt.queues)
		if err != nil {
			t.Fatal(err)
		}
		writes, seen := make([]firstWrite, tt.want+3), map[int]bool{}
		for i := range writes {
			if got := b.take(&writes[i]); got != (i < tt.want) {
				t.Fatalf("%+v: write %d has a buffer: %v", tt, i, got)
			}
			seen[writes[i].buffer] = true
		}
		if len(seen) != tt.want+1 || len(b.memory) != tt.want*(tt.size+16*maxGroup) {
			t.Errorf("%+v: %d buffers in %d bytes", tt, len(seen)-1, len(b.memory))
		}
		for i := range 3 {
			buffer := writes[i].buffer
			if next := b.giveBack(&writes[i]); next != &writes[tt.want+i] || next.buffer != buffer || writes[i].buffer != 0 {
				t.Errorf("%+v: buffer %d of write %d goes to another write", tt, buffer, i)
			}
			if next := b.giveBack(&writes[i]); next != nil {
				t.Errorf("%+v: write %d gives its buffer back twice", tt, i)
			}
			writes[i] = firstWrite{}
		}
		for i := range tt.want {
			if next := b.giveBack(&writes[3+i]); next != nil {
				t.Errorf("%+v: a write that waits for nothing gets a buffer", tt)
			}
		}
		if len(b.free) != tt.want {
			t.Errorf("%+v: %d buffers are free", tt, len(b.free))
		}
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}
}

// First writes at once need more buffers than there are, in a chain of snapshots, and some of them
// fail. All of them end, and each has its own data.
func TestFirstWritesWaitForBuffers(t *testing.T) {
	const chunkSectors, chunks = 2048, snapshotDepth // one buffer
	dir := snapshotDir(t)
	for name, size := range map[string]int64{"A": chunks << 20, "B": 2 * chunks << 20, "C": 2 * chunks << 20} {
		if err := os.Truncate(filepath.Join(dir, name), size); err != nil {
			t.Fatal(err)
		}
	}
	model, err := os.ReadFile(filepath.Join(dir, "A"))
	if err != nil {
		t.Fatal(err)
	}
	below := "below,,,rw,0 16384 snapshot $A $B P 2048"
	serve(t, dir, below, Options{}, func(b *bed) { b.writeAtOnce(model, chunkSectors, 100, true) })
	chain := "below,,,ro,0 16384 snapshot $A $B P 2048;top,,,rw,0 16384 snapshot /dev/mapper/below $C P 2048"
	serve(t, dir, chain, Options{}, func(b *bed) {
		b.writeAtOnce(model, chunkSectors, 300, false)
		b.compare(model)
	})
}

// writeAtOnce writes a few sectors in each chunk, beginning with one of them, at once. The reads of
// every second write can fail.
func (b *bed) writeAtOnce(model []byte, chunkSectors, in uint64, fail bool) {
	b.t.Helper()
	var waits []func() ublktest.Reply
	for i := range uint64(len(model)) / 512 / chunkSectors {
		at := i*chunkSectors + in
		data := bytes.Repeat([]byte{byte(in), byte(i), 5, 6}, 3*128)
		req := ublktest.Request{Op: ublk.OpWrite, StartSector: at, Sectors: 3, Data: data}
		if fail && i%2 == 1 {
			req.Answers = []int32{-5}
		} else {
			copy(model[at*512:], data)
		}
		waits = append(waits, b.Begin(req))
	}
	for i, wait := range waits {
		want := int32(3 * 512)
		if fail && i%2 == 1 {
			want = -5
		}
		if reply := wait(); reply.Result != want {
			b.t.Errorf("write %d: result %d, want %d", i, reply.Result, want)
		}
	}
}
