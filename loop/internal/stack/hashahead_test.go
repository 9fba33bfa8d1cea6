package stack

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/transfer/table"
	"github.com/ublk-loop/ublk-loop/transfer/verity"
	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// hashReads are the operations on the tree of a read.
type hashReads struct {
	waited []uint32 // lengths of those that were sent when the data had arrived
	ahead  []uint32 // lengths of those that were sent together with the data
}

// hashReadsOf returns the operations on the tree. The data has the first part, which is free again
// when it has arrived.
func (b *verityBed) hashReadsOf(r *ublktest.Reply) (reads hashReads) {
	for _, sqe := range r.Entries {
		switch part := sqe.UserData >> 48; {
		case sqe.Off < b.tree.Start():
		case part == 1:
			reads.waited = append(reads.waited, sqe.Len)
		default:
			reads.ahead = append(reads.ahead, sqe.Len)
		}
	}
	return reads
}

// sequential reads sectors in steps of 4, which must have the right data, and returns the operations
// on the tree.
func (b *verityBed) sequential(first, end int) (all hashReads) {
	b.t.Helper()
	for at := first; at < end; at += 4 {
		r := b.read(at, 4)
		if r.Result != 4*512 || !bytes.Equal(r.Data, b.data[at*512:][:4*512]) {
			b.t.Errorf("read at %d: result %d, or other bytes", at, r.Result)
		}
		reads := b.hashReadsOf(&r)
		all.waited, all.ahead = append(all.waited, reads.waited...), append(all.ahead, reads.ahead...)
	}
	return all
}

// A sequential reader waits for two reads of the lowest level, and for those of the others, of
// which the lowest level has 48, and the others have 6 and 1 blocks. All others come with the data.
func TestVerityReadsAhead(t *testing.T) {
	b := newVerityBed(t, small, "")
	all := b.sequential(0, 384)
	want := map[uint32]int{512: 1 + 1 + 6, 4 * 512: 1} // the first, and four more
	got := map[uint32]int{}
	for _, n := range all.waited {
		got[n]++
	}
	if len(got) != len(want) || got[512] != want[512] || got[4*512] != want[4*512] {
		t.Errorf("waited for reads of %v bytes", all.waited)
	}
	if len(all.ahead) != 1 || all.ahead[0] != (48-1-4)*512 {
		t.Errorf("%v bytes were read ahead", all.ahead)
	}
	if all := b.sequential(0, 384); len(all.waited)+len(all.ahead) != 0 {
		t.Errorf("hash blocks are read again: %v", all)
	}
}

// A reader that jumps reads single hash blocks.
func TestVerityReadsNothingAheadOfJumps(t *testing.T) {
	b := newVerityBed(t, small, "")
	b.sequential(0, 8)
	for at := 376; at > 8; at -= 16 {
		r := b.read(at, 4)
		reads := b.hashReadsOf(&r)
		for _, n := range append(reads.waited, reads.ahead...) {
			if n != 512 {
				t.Errorf("read at %d reads %d bytes of the tree", at, n)
			}
		}
	}
}

// Nothing is read behind the end of the tree.
func TestVerityReadsAheadToTheEnd(t *testing.T) {
	b := newVerityBed(t, small, "")
	all := b.sequential(8*44, 384)
	if n := len(all.waited); n == 0 || all.waited[n-1] != 3*512 || len(all.ahead) != 0 {
		t.Errorf("operations %v", all)
	}
}

// One operation reads as many hash blocks as fit into a slot, and at least one.
func TestVerityWindow(t *testing.T) {
	for _, tt := range []struct {
		size uint32
		want []int
	}{{512, []int{1, 4, 16, 64, 128, 128}}, {4096, []int{1, 4, 16, 16}}, {32 << 10, []int{1, 2, 2}}, {512 << 10, []int{1, 1, 1}}} {
		p := verity.Params{Algorithm: "sha256", DataBlockSize: 512, HashBlockSize: tt.size, DataBlocks: 1 << 40}
		tree, err := verity.NewTree(p, 0)
		if err != nil {
			t.Fatal(err)
		}
		l := &verityLayer{Verity: &table.Verity{Tree: tree}, params: p}
		c := &checker{streams: []stream{{next: noStream}}}
		number := tree.Lowest(1 << 20).Number
		for i, want := range tt.want {
			n := c.window(0, l, verity.HashBlock{Number: number})
			if n != want {
				t.Errorf("blocks of %d bytes: read %d has %d, not %d", tt.size, i, n, want)
			}
			number += uint64(n)
		}
	}
}

// A block that was read ahead is checked when it is needed: a wrong one is read again, and is EIO
// after that, for what is below it alone.
func TestVerityChecksWhatWasReadAhead(t *testing.T) {
	b := newVerityBed(t, small, "")
	b.flip(b.tree.Lowest(8*20).Offset + 64)
	b.sequential(0, 8*20)
	r := b.read(8*20, 4)
	if reads := b.hashReadsOf(&r); r.Result != -int32(unix.EIO) || len(reads.waited) != 1 || reads.waited[0] != 512 {
		t.Errorf("below a wrong block: result %d, operations %v", r.Result, reads)
	}
	b.sequential(8*21, 384)
	if n := b.stack.Corruptions(); n != 1 {
		t.Errorf("%d wrong blocks", n)
	}
	// The block is right at the second look.
	b = newVerityBed(t, small, "")
	b.flip(b.tree.Lowest(8*20).Offset + 64)
	b.sequential(0, 8*20)
	b.flip(b.tree.Lowest(8*20).Offset + 64)
	b.sequential(8*20, 384)
	if n := b.stack.Corruptions(); n != 0 {
		t.Errorf("%d wrong blocks", n)
	}
}

// A read ahead that fails, or gets only a part, fails no request. Data with an answer does not
// arrive, so it is read again.
func TestVerityReadAheadFails(t *testing.T) {
	const failed = -int32(unix.EREMOTEIO)
	b := newVerityBed(t, small, "")
	b.sequential(0, 8)
	// The read of four hash blocks fails, and the needed one is read alone.
	r := b.Do(ublktest.Request{Op: ublk.OpRead, StartSector: 8, Sectors: 4, Answers: []int32{4 * 512, failed}})
	if reads := b.hashReadsOf(&r); r.Result != 4*512 || len(reads.waited) != 2 || reads.waited[1] != 512 {
		t.Errorf("result %d, operations %v", r.Result, reads)
	}
	// A block that cannot be read fails what needs it.
	b = newVerityBed(t, small, "")
	b.sequential(0, 8)
	if r := b.read(8, 4, 4*512, failed, failed); r.Result != failed {
		t.Errorf("result %d of a read that needs a block that cannot be read", r.Result)
	}
	b.sequential(8, 384)
	b = newVerityBed(t, small, "")
	b.sequential(0, 24)
	// Hash blocks 5 to 47 come with the data of the fourth.
	r = b.read(24, 4, 4*512, failed)
	if reads := b.hashReadsOf(&r); len(reads.ahead) != 1 || r.Result != 4*512 {
		t.Errorf("result %d, operations %v", r.Result, reads)
	}
	if all := b.sequential(24, 384); len(all.waited)+len(all.ahead) > 20 {
		t.Errorf("after a read ahead that has failed, operations %v", all)
	}
	b = newVerityBed(t, small, "")
	b.sequential(0, 24)
	r = b.read(24, 4, 4*512, 43*512-100)
	if reads := b.hashReadsOf(&r); len(reads.ahead) != 2 || r.Result != 4*512 {
		t.Errorf("result %d, operations %v", r.Result, reads)
	}
}

// Nothing is read ahead for data of one block, which has no tree, while another layer has a sequential
// reader.
func TestVerityReadsAheadBesideOneBlock(t *testing.T) {
	dir := t.TempDir()
	makeFiles(t, dir)
	data, tree, arguments := treeIn(t, dir, "0 512 linear $A 0", nil, small)
	block, err := os.ReadFile(filepath.Join(dir, "B"))
	if err != nil {
		t.Fatal(err)
	}
	p := small
	p.DataBlocks = 1
	single, err := verity.NewTree(p, 512)
	if err != nil {
		t.Fatal(err)
	}
	root, err := single.Build(bytes.NewReader(block), nil)
	if err != nil {
		t.Fatal(err)
	}
	n := len(data) / 512
	text := fmt.Sprintf("many,,,ro,"+plainVerity+";one,,,ro,0 1 verity 1 $B $B 512 512 1 1 sha512 %x %x;top,,,ro,0 %d linear /dev/mapper/many 0,%d 1 linear /dev/mapper/one 0",
		n, arguments, root, p.Salt, n, n)
	b := openVerity(t, dir, text, nil, append(data, block[:512]...), tree)
	b.sequential(0, 24)
	if r := b.read(n, 1); r.Result != 512 || !bytes.Equal(r.Data, block[:512]) || len(r.Entries) != 1 {
		t.Errorf("result %d of %d operations, or other bytes", r.Result, len(r.Entries))
	}
	b.sequential(24, n)
}
