package stack

import (
	"bytes"
	"cmp"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

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
const (
	verityDepth      = 32
	verityMaxIOBytes = 32 << 10 // a test can have three devices
)

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

// zeroBlock is the only data block of zeroes in a tree of writeTree.
const zeroBlock = 40

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
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	content := make([]byte, s.Size)
	_, _ = rand.NewChaCha8([32]byte{9}).Read(content)
	clear(content[zeroBlock*p.DataBlockSize:][:p.DataBlockSize])
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
	disk := ublktest.NewDiskWith(t, ublk.Options{Depth: 4, MaxIOBytes: uint32(s.Size), Files: s.Files(), ExtraParts: parts}, &Target{Stack: s, ExtraParts: parts})
	if r := disk.Do(ublktest.Request{Op: ublk.OpWrite, Sectors: uint32(s.Size / 512), Data: content}); r.Result != int32(s.Size) {
		t.Fatalf("write: result %d", r.Result)
	}
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
	disk := ublktest.NewDiskWith(t, ublk.Options{Depth: verityDepth, MaxIOBytes: verityMaxIOBytes, Files: s.Files(), ExtraParts: parts}, &Target{Stack: s, ExtraParts: parts})
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
