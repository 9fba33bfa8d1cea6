package stack

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ublk-loop/ublk-loop/transfer/verity"
	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// verityStack is a device of parts of several tables with verity, each with a tree of its own.
type verityStack struct {
	*rand.Rand
	block         uint32 // size of all data blocks
	tables, lines []string
	data          []byte // that the device should have
	tree          *verity.Tree
}

// verityOptions are the options of the tables.
var verityOptions = []string{"", " 1 ignore_zero_blocks", " 1 check_at_most_once", " 2 ignore_zero_blocks check_at_most_once"}

// addTable adds a table with verity of a file, whose tree begins in the middle. It returns the data, which
// often has only one block.
func (s *verityStack) addTable(t *testing.T, dir, file string) []byte {
	t.Helper()
	path := filepath.Join(dir, file)
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	start := uint64(len(content) / 2)
	p := verity.Params{
		Algorithm: []string{"sha256", "sha512", "sha1"}[s.IntN(3)], Salt: []byte("s"), DataBlockSize: s.block, HashBlockSize: 512 << s.IntN(4),
		DataBlocks: min(1+s.Uint64N(1<<s.IntN(8)), start/uint64(s.block)),
	}
	if s.tree, err = verity.NewTree(p, start); err != nil {
		t.Fatal(err)
	}
	root, err := s.tree.Build(bytes.NewReader(content), area(content))
	if err == nil {
		err = os.WriteFile(path, content, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	s.tables = append(s.tables, fmt.Sprintf("of%s,,,ro,0 %d verity 1 $%s $%s %d %d %d %d %s %x %x%s", file, p.DataSize()/512, file, file, p.DataBlockSize,
		p.HashBlockSize, p.DataBlocks, start/uint64(p.HashBlockSize), p.Algorithm, root, p.Salt, verityOptions[s.IntN(len(verityOptions))]))
	return content[:p.DataSize()]
}

// addPart adds a random part of the table of a file, which has some data.
func (s *verityStack) addPart(file string, data []byte) {
	blocks := len(data) / int(s.block)
	from := s.IntN(blocks)
	part := data[from*int(s.block):][:(1+s.IntN(blocks-from))*int(s.block)]
	s.lines = append(s.lines, fmt.Sprintf("%d %d linear /dev/mapper/of%s %d", len(s.data)/512, len(part)/512, file, from*int(s.block)/512))
	s.data = append(s.data, part...)
}

// compare reads the device from its start to its end, and then many random ranges at a time.
func (s *verityStack) compare(t *testing.T, b *verityBed) {
	t.Helper()
	unit, sectors := int(s.block)/512, len(s.data)/512
	begin := func(first, n int) (wait func()) {
		n = min(n, sectors-first)
		answer := b.Begin(ublktest.Request{Op: ublk.OpRead, StartSector: uint64(first), Sectors: uint32(n)})
		return func() {
			if r := answer(); r.Result != int32(n*512) || !bytes.Equal(r.Data, s.data[first*512:][:n*512]) {
				t.Fatalf("read of %d sectors at %d: result %d, or other bytes", n, first, r.Result)
			}
		}
	}
	step := unit * (1 + s.IntN(4))
	for first := 0; first < sectors; first += step {
		begin(first, step)()
	}
	var waits []func()
	for range verityDepth {
		waits = append(waits, begin(unit*s.IntN(sectors/unit), unit*(1+s.IntN(verityMaxIOBytes/512/unit))))
	}
	for _, wait := range waits {
		wait()
	}
}

// A device of parts of random tables with verity has their data, however it is read.
func TestVerityRandomStacks(t *testing.T) {
	for seed := range uint64(40) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 1))
			s, dir := &verityStack{Rand: random, block: 512 << random.IntN(4)}, t.TempDir()
			makeFiles(t, dir)
			files, data := []string{"A", "B", "C"}[:1+random.IntN(3)], map[string][]byte{}
			for _, file := range files {
				data[file] = s.addTable(t, dir, file)
			}
			for i := range len(files) + random.IntN(4) {
				file := files[i%len(files)]
				s.addPart(file, data[file])
			}
			text := strings.Join(s.tables, ";") + ";top,,,ro," + strings.Join(s.lines, ",")
			t.Log(text)
			b := openVerity(t, dir, text, nil, s.data, s.tree)
			s.compare(t, b)
			s.compare(t, b)
			if n := b.stack.Corruptions(); n != 0 {
				t.Errorf("%d wrong blocks", n)
			}
		})
	}
}
