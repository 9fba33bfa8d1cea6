package loop

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ring"
	"github.com/ublk-loop/ublk-loop/transfer/verity"
	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// verityImage is a disk with data and its tree behind it.
type verityImage struct {
	disk   string
	params verity.Params
	tree   *verity.Tree
	root   []byte
}

// newVerityImage fills a disk with random data, of which some blocks are zero, and its tree.
func newVerityImage(t testing.TB, disk string, p verity.Params) *verityImage {
	t.Helper()
	hash := uint64(p.HashBlockSize)
	m := &verityImage{disk: disk, params: p}
	var err error
	if m.tree, err = verity.NewTree(p, (p.DataSize()/hash+2)*hash); err != nil {
		t.Fatal(err)
	}
	data := make([]byte, p.DataSize())
	_, _ = rand.NewChaCha8([32]byte{byte(p.DataBlocks)}).Read(data)
	size := int(p.DataBlockSize)
	for i := range int(p.DataBlocks) {
		if i%7 == 3 {
			clear(data[i*size:][:size])
		}
	}
	f := openFile(t, disk, os.O_RDWR)
	if _, err := f.WriteAt(data, 0); err != nil {
		t.Fatal(err)
	}
	if m.root, err = m.tree.Build(bytes.NewReader(data), f); err == nil {
		err = f.Sync()
	}
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// table returns the line of the image.
func (m *verityImage) table(options string) string {
	salt := "-"
	if len(m.params.Salt) > 0 {
		salt = hex.EncodeToString(m.params.Salt)
	}
	p := &m.params
	return strings.TrimSpace(fmt.Sprintf("0 %d verity 1 %s %s %d %d %d %d %s %x %s %s", p.DataSize()/512, m.disk, m.disk,
		p.DataBlockSize, p.HashBlockSize, p.DataBlocks, m.tree.Start()/uint64(p.HashBlockSize), p.Algorithm, m.root, salt, options))
}

// flip changes a bit of the disk until the end of the test.
func (m *verityImage) flip(t *testing.T, at uint64) {
	t.Helper()
	f := openFile(t, m.disk, os.O_RDWR|unix.O_DIRECT)
	change := func() {
		mem, sector := alignedMemory(t, 4096), int64(at)&^4095
		_, err := f.ReadAt(mem, sector)
		mem[at&4095] ^= 0x10
		if err == nil {
			_, err = f.WriteAt(mem, sector)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	change()
	t.Cleanup(change)
}

// A read is what a program gets of a range: an error, or bytes.
type read struct {
	err   error
	bytes string
}

// readsOf reads a device from its start to its end in steps of a size.
func readsOf(t *testing.T, path string, size int) (reads []read) {
	t.Helper()
	f := openFile(t, path, os.O_RDONLY|unix.O_DIRECT)
	mem := alignedMemory(t, size)
	for at := int64(0); ; at += int64(size) {
		n, err := unix.Pread(int(f.Fd()), mem, at)
		if err == nil && n == 0 {
			return reads
		}
		reads = append(reads, read{err, string(mem[:max(n, 0)])})
	}
}

// verityTrees are trees of disks of 16 MiB.
var verityTrees = []verity.Params{
	{Algorithm: "sha256", DataBlockSize: 4096, HashBlockSize: 4096, DataBlocks: 1000, Salt: []byte("salt")},
	{Algorithm: "sha512", DataBlockSize: 1024, HashBlockSize: 512, DataBlocks: 1025},
	{Algorithm: "sha1", DataBlockSize: 512, HashBlockSize: 4096, DataBlocks: 129, Salt: bytes.Repeat([]byte{7}, 256)},
	{Algorithm: "sha256", DataBlockSize: 4096, HashBlockSize: 1024, DataBlocks: 1},
}

// damages returns places to change in an image, one list for each case.
func (m *verityImage) damages() map[string][]uint64 {
	size, hash, n := uint64(m.params.DataBlockSize), uint64(m.params.HashBlockSize), m.params.DataBlocks
	list := map[string][]uint64{
		"nothing":          nil,
		"first data block": {3},
		"a zero block":     {n / 2 / 7 * 7 * size, min(3, n-1) * size},
		"last data block":  {n*size - 1},
		"several blocks":   {5 * size % (n * size), 6 * size % (n * size), 60 * size % (n * size)},
	}
	for i := range m.tree.HashBlocks() {
		if i < 4 || i == m.tree.HashBlocks()-1 || i%50 == 0 {
			list[fmt.Sprintf("digest in hash block %d", i)] = []uint64{m.tree.Start() + i*hash}
			list[fmt.Sprintf("end of hash block %d", i)] = []uint64{m.tree.Start() + (i+1)*hash - 1}
		}
	}
	return list
}

// Reads of a damaged image fail for the same ranges as those of the kernel's device, with the
// same errno, and have the same bytes elsewhere.
func TestKernelVerityErrors(t *testing.T) {
	ctl := ublktest.Kernel(t)
	disk := nullDisk(t, 16, sectorDisk)
	for _, p := range verityTrees {
		m := newVerityImage(t, disk, p)
		damages := m.damages()
		for i, name := range slices.Sorted(maps.Keys(damages)) {
			options := []string{"", "1 ignore_corruption", "1 ignore_zero_blocks", "1 check_at_most_once"}
			switch {
			case !testing.Short() && i < 8:
			case name == "a zero block":
				options = []string{"", "1 ignore_zero_blocks"}
			default:
				options = options[i%4 : i%4+1]
			}
			for _, options := range options {
				t.Run(fmt.Sprintf("%s, %d levels, %s, %s", p.Algorithm, m.tree.Levels(), name, options), func(t *testing.T) {
					for _, at := range damages[name] {
						m.flip(t, at)
					}
					compareReads(t, ctl, m, m.table(options))
				})
			}
		}
		wrong := *m
		wrong.root = slices.Concat(m.root[1:], m.root[:1])
		compareReads(t, ctl, &wrong, wrong.table(""))
	}
}

// compareReads reads the kernel's device of a table and ours, block by block and in larger
// steps. Each has to notice by itself whether something is wrong.
func compareReads(t *testing.T, ctl *ublk.Control, m *verityImage, text string) {
	t.Helper()
	sizes := []int{int(m.params.DataBlockSize), 16 << 10, 256 << 10}
	var want, got [][]read
	var status string
	t.Run("kernel", func(t *testing.T) {
		path := mappedDisk(t, text)
		for _, size := range sizes {
			want = append(want, readsOf(t, path, size))
		}
		status = strings.Fields(run(t, "dmsetup", "status", mappedName))[3]
	})
	t.Run("ours", func(t *testing.T) {
		dev := attachTable(t, ctl, text, Config{})
		for _, size := range sizes {
			got = append(got, readsOf(t, dev.Path(), size))
		}
		if got := dev.Status().Verity; got != status {
			t.Errorf("the device is %s, the kernel says %s", got, status)
		}
	})
	for i := range want {
		if len(got[i]) != len(want[i]) {
			t.Fatalf("%d reads of %d bytes, not %d", len(got[i]), sizes[i], len(want[i]))
		}
		for n := range want[i] {
			switch g, w := got[i][n], want[i][n]; {
			case !errors.Is(g.err, w.err) || (g.err == nil) != (w.err == nil):
				t.Errorf("read %d of %d bytes: %v, the kernel's %v", n, sizes[i], g.err, w.err)
			case g.err == nil && g.bytes != w.bytes:
				t.Errorf("read %d of %d bytes: other bytes", n, sizes[i])
			}
		}
	}
}

// Reads that are submitted together, and which the block layer would merge, fail one by one.
func TestKernelVerityNeighbours(t *testing.T) {
	ctl := ublktest.Kernel(t, ublktest.OldestKernel)
	m := newVerityImage(t, nullDisk(t, 16, sectorDisk), verityTrees[0])
	m.flip(t, 37*4096)
	m.flip(t, 500*4096+5)
	for _, path := range []func(*testing.T) string{
		func(t *testing.T) string { return mappedDisk(t, m.table("")) },
		func(t *testing.T) string { return attachTable(t, ctl, m.table(""), Config{}).Path() },
	} {
		t.Run("", func(t *testing.T) {
			f := openFile(t, path(t), os.O_RDONLY|unix.O_DIRECT)
			for first := 0; first+neighbours <= 1000; first += neighbours {
				for i, result := range readTogether(t, f, first) {
					want := int32(4096)
					if n := first + i; n == 37 || n == 500 {
						want = -int32(unix.EIO)
					}
					if result != want {
						t.Errorf("block %d: result %d, want %d", first+i, result, want)
					}
				}
			}
		})
	}
}

// neighbours is the number of reads that are submitted together.
const neighbours = 50

// readTogether reads adjacent blocks of 4096 bytes, each by an operation of its own, all
// submitted at once. It returns their results.
func readTogether(t *testing.T, f *os.File, first int) []int32 {
	t.Helper()
	r, err := ring.New(ring.Options{Entries: neighbours})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	mem := alignedMemory(t, neighbours*4096)
	for i := range neighbours {
		sqe := r.GetSQE()
		sqe.PrepRead(ring.FD(int(f.Fd())), ring.Address(mem[i*4096:]), 4096, uint64(first+i)*4096)
		sqe.UserData = uint64(i)
	}
	if err := r.SubmitAndWait(neighbours); err != nil {
		t.Fatal(err)
	}
	results := make([]int32, neighbours)
	for i := range r.CQReady() {
		results[r.CQE(i).UserData] = r.CQE(i).Res
	}
	return results
}

// No read of a device with verity makes the server allocate memory.
func TestKernelVerityAllocatesNothing(t *testing.T) {
	ctl := ublktest.Kernel(t, ublktest.Plain)
	m := newVerityImage(t, nullDisk(t, 16, sectorDisk), verityTrees[1])
	m.flip(t, 100<<10)
	dev := attachTable(t, ctl, m.table("3 ignore_corruption ignore_zero_blocks check_at_most_once"), Config{Queues: 1})
	f := openFile(t, dev.Path(), os.O_RDONLY|unix.O_DIRECT)
	fd, mem := int(f.Fd()), alignedMemory(t, 64<<10)
	// Reports of wrong blocks, of which there are a hundred, allocate.
	for range 101 {
		if _, err := unix.Pread(fd, mem, 64<<10); err != nil {
			t.Fatal(err)
		}
	}
	waitUntil(t, "all reports", func() bool { return len(dev.Warnings()) == 100 })
	const rounds = 1000
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for i := range rounds {
		if _, err := unix.Pread(fd, mem, int64(i*7%16)*64<<10); err != nil {
			t.Fatal(err)
		}
	}
	runtime.ReadMemStats(&after)
	// Go's runtime allocates for itself now and then.
	if n := after.Mallocs - before.Mallocs; n > rounds/100 {
		t.Errorf("%d allocations for %d requests", n, rounds)
	}
}
