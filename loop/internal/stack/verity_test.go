package stack

import (
	"bytes"
	"cmp"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/loop/internal/backing"
	"github.com/ublk-loop/ublk-loop/transfer/verity"
	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// area keeps a tree in memory.
type area []byte

func (a area) WriteAt(b []byte, at int64) (int, error) { return copy(a[at:], b), nil }

// verityBed is a device with verity.
type verityBed struct {
	*bed
	data []byte // that the device should have
	tree *verity.Tree
}

// verityDepth is the depth of the queue of a verityBed.
const verityDepth = 32

// treeIn fills a device of tables with random data, and a tree behind it, at the start of the
// last quarter. It returns the data, the tree and the arguments of verity behind the devices.
func treeIn(t *testing.T, dir, text string, keys []int, p verity.Params) (data []byte, tree *verity.Tree, arguments string) {
	t.Helper()
	t.Run("make", func(t *testing.T) { data, tree, arguments = writeTree(t, dir, text, keys, p) })
	// The kernel ends a ring, which holds the locks of the files, some time after its last
	// descriptor. Copies have no locks.
	for _, name := range []string{"A", "B", "C", "D"} {
		path := filepath.Join(dir, name)
		content, err := os.ReadFile(path)
		if err == nil {
			err = os.Remove(path)
		}
		if err == nil {
			err = os.WriteFile(path, content, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return data, tree, arguments
}

func writeTree(t *testing.T, dir, text string, keys []int, p verity.Params) ([]byte, *verity.Tree, string) {
	t.Helper()
	o := &Options{DirectIO: backing.SwitchOff}
	if keys != nil {
		o.Keys = keysFor(t, keys...)
	}
	s, err := open(t, dir, text, o)
	if err != nil {
		t.Fatal(err)
	}
	content := make([]byte, s.Size)
	_, _ = rand.NewChaCha8([32]byte{9}).Read(content)
	start := s.Size * 3 / 4 / uint64(p.HashBlockSize) * uint64(p.HashBlockSize)
	if p.DataBlocks == 0 {
		p.DataBlocks = start / uint64(p.DataBlockSize)
	}
	tree, err := verity.NewTree(p, start)
	if err != nil {
		t.Fatal(err)
	}
	if tree.End() > s.Size || p.DataSize() > start {
		t.Fatalf("%d bytes of data and a tree up to %d in %d", p.DataSize(), tree.End(), s.Size)
	}
	root, err := tree.Build(bytes.NewReader(content), area(content))
	if err != nil {
		t.Fatal(err)
	}
	parts := s.ExtraParts(4)
	disk := ublktest.NewDiskWith(t, ublk.Options{Depth: 4, Files: s.Files(), ExtraParts: parts}, &Target{Stack: s, ExtraParts: parts})
	if r := disk.Do(ublktest.Request{Op: ublk.OpWrite, Sectors: uint32(s.Size / 512), Data: content}); r.Result != int32(s.Size) {
		t.Fatalf("write: result %d", r.Result)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	salt := cmp.Or(fmt.Sprintf("%x", p.Salt), "-")
	arguments := fmt.Sprintf("%d %d %d %d %s %x %s", p.DataBlockSize, p.HashBlockSize, p.DataBlocks, start/uint64(p.HashBlockSize), p.Algorithm, root, salt)
	return content[:p.DataSize()], tree, arguments
}

// plainVerity is verity of one file, without the options.
const plainVerity = "0 %d verity 1 $A $A %s"

// newVerityBed makes a device with verity and options on one file.
func newVerityBed(t *testing.T, p verity.Params, options string) *verityBed {
	t.Helper()
	dir := t.TempDir()
	makeFiles(t, dir)
	data, tree, arguments := treeIn(t, dir, "0 512 linear $A 0", nil, p)
	return openVerity(t, dir, fmt.Sprintf(plainVerity+" %s", len(data)/512, arguments, options), nil, data, tree)
}

func openVerity(t *testing.T, dir, text string, keys []int, data []byte, tree *verity.Tree) *verityBed {
	t.Helper()
	o := &Options{DirectIO: backing.SwitchOff}
	if keys != nil {
		o.Keys = keysFor(t, keys...)
	}
	s, err := open(t, dir, text, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	parts := s.ExtraParts(verityDepth)
	disk := ublktest.NewDiskWith(t, ublk.Options{Depth: verityDepth, Files: s.Files(), ExtraParts: parts}, &Target{Stack: s, ExtraParts: parts})
	return &verityBed{bed: &bed{Disk: disk, t: t, dir: dir, stack: s}, data: data, tree: tree}
}

// read reads blocks of 512 bytes.
func (b *verityBed) read(first, sectors int, answers ...int32) ublktest.Reply {
	b.t.Helper()
	return b.Do(ublktest.Request{Op: ublk.OpRead, StartSector: uint64(first), Sectors: uint32(sectors), Answers: answers})
}

// flip changes a bit of the file.
func (b *verityBed) flip(at uint64) {
	b.t.Helper()
	f, err := os.OpenFile(b.stack.Backings[0].Path, os.O_RDWR, 0)
	if err != nil {
		b.t.Fatal(err)
	}
	defer f.Close()
	var c [1]byte
	if _, err := f.ReadAt(c[:], int64(at)); err != nil {
		b.t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{c[0] ^ 1}, int64(at)); err != nil {
		b.t.Fatal(err)
	}
}

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
	b.Disk = ublktest.NewDiskWith(t, ublk.Options{Depth: verityDepth, Files: b.stack.Files(), ExtraParts: parts}, &Target{Stack: b.stack, ExtraParts: parts})
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
	if r := b.read(0, 384); r.Result != 384*512 || !bytes.Equal(r.Data, b.data) {
		t.Errorf("ignore_corruption: result %d, or other bytes", r.Result)
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

// Blocks beyond the hundredth are counted, and not reported.
func TestVerityReportsAreBounded(t *testing.T) {
	b := newVerityBed(t, small, "1 ignore_corruption")
	for n := range uint64(120) {
		b.flip(n * 512)
	}
	b.read(0, 384)
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
