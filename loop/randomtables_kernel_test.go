package loop

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/transfer/verity"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// A tableMaker makes stacks of tables at random. No sector of a disk is at two places of a stack.
type tableMaker struct {
	*rand.Rand
	t      *testing.T
	tables []string
	unit   uint64 // of the lengths of lines, in sectors; no block is larger
}

// block returns the size of a block in bytes.
func (m *tableMaker) block() uint64 { return min(512<<m.Uint64N(4), m.unit*512) }

// disk makes a disk of 1 MiB of random bytes.
func (m *tableMaker) disk() string {
	m.t.Helper()
	path := nullDisk(m.t, 1, map[string]string{"blocksize": fmt.Sprint(m.block())})
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_DIRECT, 0)
	if err != nil {
		m.t.Fatal(err)
	}
	defer f.Close() // the page cache of the disk ends with it
	if _, err := f.WriteAt(random(alignedMemory(m.t, 1<<20)), 0); err != nil {
		m.t.Fatal(err)
	}
	return path
}

// location returns a place with some sectors on a disk, or in a table with up to some further ones below it.
func (m *tableMaker) location(depth int, sectors uint64) string {
	before := m.Uint64N(4) * m.unit
	if depth == 0 || m.IntN(3) == 0 {
		return fmt.Sprintf("%s %d", m.disk(), before)
	}
	return fmt.Sprintf("/dev/mapper/%s %d", m.table(depth-1, before+sectors+m.Uint64N(3)*m.unit), before)
}

// origin returns a device of at least some sectors.
func (m *tableMaker) origin(depth int, sectors uint64) string {
	switch {
	case m.IntN(3) == 0:
		return "/dev/mapper/" + m.verity()
	case depth == 0 || m.IntN(2) == 0:
		return m.disk()
	}
	return "/dev/mapper/" + m.table(depth-1, sectors)
}

// verity makes a table of 1 MiB with the target verity, and returns its name.
func (m *tableMaker) verity() string {
	m.t.Helper()
	p := verity.Params{
		Algorithm:     []string{"sha1", "sha256", "sha512"}[m.IntN(3)],
		DataBlockSize: uint32(m.unit * 512), HashBlockSize: 512 << m.IntN(4), DataBlocks: 2048 / m.unit, Salt: random(make([]byte, m.IntN(33))),
	}
	start := m.Uint64N(3)
	tree, err := verity.NewTree(p, start*uint64(p.HashBlockSize))
	if err != nil {
		m.t.Fatal(err)
	}
	data, hash := m.disk(), nullDisk(m.t, 2, sectorDisk)
	from, to := openFile(m.t, data, os.O_RDONLY|unix.O_DIRECT), openFile(m.t, hash, os.O_RDWR)
	content := alignedMemory(m.t, 1<<20)
	if _, err := from.ReadAt(content, 0); err != nil {
		m.t.Fatal(err)
	}
	root, err := tree.Build(bytes.NewReader(content), to)
	if err != nil {
		m.t.Fatal(err)
	}
	if err := errors.Join(to.Sync(), from.Close(), to.Close()); err != nil {
		m.t.Fatal(err)
	}
	salt := "-"
	if len(p.Salt) > 0 {
		salt = hex.EncodeToString(p.Salt)
	}
	name := fmt.Sprint("random", len(m.tables))
	m.tables = append(m.tables, fmt.Sprintf("%s,,,ro,0 2048 verity 1 %s %s %d %d %d %d %s %x %s", name, data, hash,
		p.DataBlockSize, p.HashBlockSize, p.DataBlocks, start, p.Algorithm, root, salt))
	return name
}

// crypt returns a target with some sectors.
func (m *tableMaker) crypt(depth int, sectors uint64) string {
	key := make([]byte, 32<<m.IntN(2))
	for i := range key {
		key[i] = byte(m.Uint32())
	}
	options := []string{fmt.Sprintf("sector_size:%d", m.block())}
	if m.IntN(2) == 0 {
		options = append(options, "iv_large_sectors")
	}
	return fmt.Sprintf("crypt %s %x %d %s %d %s", []string{"aes-xts-plain64", "aes-xts-plain"}[m.IntN(2)], key, m.Uint64()>>m.IntN(64)&^7,
		m.location(depth, sectors), len(options), strings.Join(options, " "))
}

// target returns a target with some sectors. whole says that it is the only one of its table.
func (m *tableMaker) target(depth int, sectors uint64, whole bool) string {
	switch kind := m.IntN(10); {
	case kind < 2:
		return "linear " + m.location(depth, sectors)
	case kind < 4 && sectors%(2*m.unit) == 0:
		return fmt.Sprintf("striped 2 %d %s %s", m.unit, m.location(depth, sectors/2), m.location(depth, sectors/2))
	case kind < 8 && whole:
		store := nullDisk(m.t, 4, map[string]string{"blocksize": fmt.Sprint(m.block())})
		return fmt.Sprintf("snapshot %s %s %s %d", m.origin(depth, sectors), store, []string{"P", "PO"}[m.IntN(2)], 8<<m.IntN(4))
	case kind == 8:
		return "zero"
	}
	return m.crypt(depth, sectors)
}

// table makes a table of some sectors, and returns its name.
func (m *tableMaker) table(depth int, sectors uint64) string {
	var lines []string
	for start := uint64(0); start < sectors; {
		n := sectors - start
		if m.IntN(2) == 0 {
			n = min(n, m.unit*(1+m.Uint64N(40)))
		}
		lines = append(lines, fmt.Sprintf("%d %d %s", start, n, m.target(depth, n, n == sectors)))
		start += n
	}
	name := fmt.Sprint("random", len(m.tables))
	m.tables = append(m.tables, name+",,,rw,"+strings.Join(lines, ","))
	return name
}

// Stacks of tables that are made at random are the same devices for the kernel: each reads what the other wrote.
func TestKernelRandomTables(t *testing.T) {
	ctl := ublktest.Kernel(t, ublktest.OldestKernel)
	for _, module := range []string{"dm_mod", "dm_snapshot", "dm_crypt", "dm_verity"} {
		run(t, "modprobe", module)
	}
	seeds := []uint64{1, 2, 3, 4, 5} // a short run has the same stacks each time
	if !testing.Short() {
		for range 20 {
			seeds = append(seeds, rand.Uint64())
		}
	}
	for _, seed := range seeds[:ublktest.Fewer(t, len(seeds), 2)] {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 0))
			m := &tableMaker{Rand: r, t: t, unit: 1 << r.IntN(4)}
			m.table(1+m.IntN(2), m.unit*(20+m.Uint64N(100)))
			m.bothWays(func(t *testing.T, text string) string { return attachTable(t, ctl, text, Config{}).Path() })
		})
	}
}

// bothWays writes to the stack through the kernel, which makes the stores, and through ours in turn.
func (m *tableMaker) bothWays(ours func(t *testing.T, text string) string) {
	text := strings.Join(m.tables, ";")
	block := int(m.unit * 512)
	var content []byte
	for _, step := range []string{"kernel", "ours", "kernel", "ours"} {
		m.t.Run(step, func(t *testing.T) {
			defer func() {
				if t.Failed() {
					t.Log(text)
				}
			}()
			var path string
			if step == "kernel" {
				path = mappedStack(t, text)
			} else {
				path = ours(t, text)
			}
			f := openFile(t, path, os.O_RDWR|unix.O_DIRECT)
			got := readDisk(t, f)
			if content != nil && !bytes.Equal(got, content) {
				t.Fatal(firstDifference(got, content))
			}
			mem := alignedMemory(t, 64*block)
			for range 40 {
				at := m.IntN(len(got) / block)
				data := mem[:block*(1+m.IntN(min(len(got)/block-at, 64)))]
				if _, err := f.WriteAt(random(data), int64(at*block)); err != nil {
					t.Fatal(err)
				}
			}
			if err := f.Sync(); err != nil {
				t.Fatal(err)
			}
			content = readDisk(t, f)
		})
		if m.t.Failed() {
			return
		}
	}
}
