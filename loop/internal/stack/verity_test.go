package stack

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/transfer/verity"
	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// small is a tree of three levels, each hash block with 8 digests.
var small = verity.Params{Algorithm: "sha512", DataBlockSize: 512, HashBlockSize: 512, DataBlocks: 384, Salt: []byte("s")}

// checkAll sends random reads, many at a time, and compares their bytes.
func (b *verityBed) checkAll(t *testing.T) {
	t.Helper()
	random := rand.New(rand.NewPCG(1, 9))
	unit := int(b.tree.Params().DataBlockSize) / 512
	for range 60 {
		var waits []func()
		for range verityDepth {
			first := unit * random.IntN(len(b.data)/512/unit)
			n := min(unit*(1+random.IntN(20)), len(b.data)/512-first)
			wait := b.Begin(ublktest.Request{Op: ublk.OpRead, StartSector: uint64(first), Sectors: uint32(n)})
			waits = append(waits, func() {
				if r := wait(); r.Result != int32(n*512) || !bytes.Equal(r.Data, b.data[first*512:][:n*512]) {
					t.Fatalf("read of %d sectors at %d: result %d, or other bytes", n, first, r.Result)
				}
			})
		}
		for _, wait := range waits {
			wait()
		}
	}
	if n := b.stack.Corruptions(); n != 0 {
		t.Errorf("%d wrong blocks", n)
	}
}

// Many reads at a time, with more hash blocks than slots, all end with the bytes of the data.
func TestVerityReads(t *testing.T) {
	newVerityBed(t, small, "").checkAll(t)
}

// A queue that remembers no hash block reads each of them for each block.
func TestVerityWithoutMemory(t *testing.T) {
	b := newVerityBed(t, small, "")
	b.stack.verities = cacheBytes // no hash block fits into the part of a line
	parts := b.stack.ExtraParts(verityDepth)
	b.Disk = ublktest.NewDiskWith(t, ublk.Options{Depth: verityDepth, MaxIOBytes: verityMaxIOBytes, Files: b.stack.Files(), ExtraParts: parts}, &Target{Stack: b.stack, ExtraParts: parts})
	b.checkAll(t)
	if r := b.read(0, 2); len(r.Entries) != 1+2*b.tree.Levels() {
		t.Errorf("%d operations for two blocks", len(r.Entries))
	}
}

// The layers above and below verity, and those of its tree, are those of the tables.
func TestVerityBetweenLayers(t *testing.T) {
	const below = "low,,,ro,0 128 striped 2 8 $A 200 $B 104,128 384 linear $C 8;enc,,,ro,0 512 crypt aes-xts-plain64 :64:user:a 8 /dev/mapper/low 0"
	dir := t.TempDir()
	makeFiles(t, dir)
	p := verity.Params{Algorithm: "sha256", DataBlockSize: 1024, HashBlockSize: 512}
	data, tree, arguments := treeIn(t, dir, strings.ReplaceAll(below, ",ro,", ",rw,"), []int{64}, p)
	half := len(data) / 2
	text := fmt.Sprintf("%s;ver,,,ro,0 %d verity 1 /dev/mapper/enc /dev/mapper/enc %s;top,,,ro,0 %d linear /dev/mapper/ver %d,%d %d linear /dev/mapper/ver 0",
		below, len(data)/512, arguments, half/512, half/512, half/512, half/512)
	b := openVerity(t, dir, text, []int{64}, append(bytes.Clone(data[half:]), data[:half]...), tree)
	b.checkAll(t)
	b.flip(200*512 + 3)
	if r := b.read(half/512, 2); r.Result != -int32(unix.EIO) {
		t.Errorf("wrong block: result %d", r.Result)
	}
}

// A block that is wrong once is read again. A block that stays wrong is EIO after that, and is
// counted once.
func TestVerityReadsAgain(t *testing.T) {
	b := newVerityBed(t, small, "")
	// The data and the highest hash block do not arrive at first.
	r := b.read(8, 1, 512, 512)
	if want := 2 + 2 + (b.tree.Levels() - 1); r.Result != 512 || !bytes.Equal(r.Data, b.data[8*512:][:512]) || len(r.Entries) != want {
		t.Errorf("result %d of %d operations, want %d", r.Result, len(r.Entries), want)
	}
	if n := b.stack.Corruptions(); n != 0 {
		t.Errorf("%d wrong blocks", n)
	}
	b.flip(9 * 512)
	if r := b.read(8, 3); r.Result != -int32(unix.EIO) || len(r.Entries) != 2 {
		t.Errorf("wrong data: result %d of %d operations", r.Result, len(r.Entries))
	}
	b.flip(9 * 512)
	// The last hash block of the lowest level, which was not read yet.
	b.flip(b.tree.End() - 512)
	if r := b.read(383, 1); r.Result != -int32(unix.EIO) || len(r.Entries) != 1+b.tree.Levels()-1+1 {
		t.Errorf("wrong hash block: result %d of %d operations", r.Result, len(r.Entries))
	}
	want := []Corruption{{Block: 9}, {Tree: true, Block: b.tree.HashBlocks() - 1}}
	if n := b.stack.Corruptions(); n != uint64(len(want)) {
		t.Fatalf("%d wrong blocks", n)
	}
	for _, w := range want {
		if c := <-b.stack.CorruptionReports(); c != w {
			t.Errorf("reported %v, not %v", &c, &w)
		}
	}
}

// A hash block that cannot be read fails only the request that reads it.
func TestVerityHashReadFails(t *testing.T) {
	b := newVerityBed(t, small, "")
	if r := b.read(8, 1, 512, -int32(unix.EREMOTEIO)); r.Result != -int32(unix.EREMOTEIO) {
		t.Errorf("result %d", r.Result)
	}
	b.checkAll(t)
}

// ignore_corruption serves what is there; check_at_most_once looks at no block twice.
func TestVerityOptions(t *testing.T) {
	b := newVerityBed(t, small, "1 ignore_corruption")
	b.flip(9 * 512)
	b.flip(b.tree.End() - 512)
	b.data[9*512] ^= 1
	if !bytes.Equal(b.whole(), b.data) {
		t.Error("ignore_corruption: other bytes")
	}
	if b.stack.Corruptions() == 0 {
		t.Error("ignore_corruption: nothing is counted")
	}
	b = newVerityBed(t, small, "1 check_at_most_once")
	for range 2 {
		if r := b.read(0, 16); r.Result != 16*512 {
			t.Errorf("check_at_most_once: result %d", r.Result)
		}
		b.flip(9 * 512)
	}
	if r := b.read(9, 16); r.Result != 16*512 { // the second flip has repaired the block
		t.Errorf("check_at_most_once: result %d", r.Result)
	}
	b.flip(100 * 512)
	if r := b.read(96, 8); r.Result != -int32(unix.EIO) {
		t.Errorf("a block that was not read before: result %d", r.Result)
	}
}

// With ignore_zero_blocks, a block with the digest of zeroes is zero, whatever is on the disk.
func TestVerityZeroBlocks(t *testing.T) {
	for options, want := range map[string]int32{"": -int32(unix.EIO), "1 ignore_zero_blocks": 512} {
		b := newVerityBed(t, small, options)
		b.flip(zeroBlock * 512)
		if r := b.read(zeroBlock, 1); r.Result != want || want > 0 && !bytes.Equal(r.Data, make([]byte, 512)) {
			t.Errorf("%q: result %d, want %d, or not zeroes", options, r.Result, want)
		}
		if n := b.stack.Corruptions(); (n == 0) != (want > 0) {
			t.Errorf("%q: %d wrong blocks", options, n)
		}
		b.flip((zeroBlock + 1) * 512)
		if r := b.read(zeroBlock+1, 1); r.Result != -int32(unix.EIO) {
			t.Errorf("%q: result %d of a wrong block that is not zero", options, r.Result)
		}
	}
}

// Blocks beyond the hundredth are counted, and not reported.
func TestVerityReportsAreBounded(t *testing.T) {
	b := newVerityBed(t, small, "1 ignore_corruption")
	for n := range uint64(120) {
		b.flip(n * 512)
	}
	b.whole()
	if n := b.stack.Corruptions(); n != 120 {
		t.Errorf("%d wrong blocks are counted", n)
	}
	var last Corruption
	for range maxReports {
		last = <-b.stack.CorruptionReports()
	}
	if len(b.stack.CorruptionReports()) != 0 || !last.Last || last.Block != maxReports-1 {
		t.Errorf("the last report is %v, and %d follow", &last, len(b.stack.CorruptionReports()))
	}
}

// Reads at the same time share the hash blocks above them: each is read once.
func TestVerityReadsHashBlocksOnce(t *testing.T) {
	b := newVerityBed(t, small, "")
	begun := make(chan struct{})
	// The queue gets the other requests while the first reads its data.
	hold := func(int32) { <-begun }
	var waits []func() ublktest.Reply
	for i := range 8 {
		waits = append(waits, b.Begin(ublktest.Request{Op: ublk.OpRead, StartSector: uint64(i), Sectors: 1, Ended: hold}))
	}
	close(begun)
	operations := 0
	for _, wait := range waits {
		operations += len(wait().Entries)
	}
	if want := 8 + b.tree.Levels(); operations != want {
		t.Errorf("%d operations for 8 blocks, want %d", operations, want)
	}
}
