package cowfile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ublk-loop/ublk-loop/transfer/snapshot"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// mapper makes devices of device mapper over files.
type mapper struct {
	t           *testing.T
	dir         string
	base, store string // files
	a, b        string // their loop devices; empty between uses
	slow        bool   // writes to the base take milliseconds
}

func newMapper(t *testing.T, needs ...ublktest.Need) *mapper {
	t.Helper()
	ublktest.Kernel(t, needs...)
	// libdevmapper makes the nodes itself: no udev runs in the machine.
	t.Setenv("DM_DISABLE_UDEV", "1")
	m := &mapper{t: t}
	for _, module := range []string{"dm_mod", "dm_snapshot", "dm_delay", "loop"} {
		m.must("modprobe", module)
	}
	return m
}

// files makes a base of random bytes, in a new directory. The store does not exist yet.
func (m *mapper) files(size int) {
	m.t.Helper()
	m.dir = directory(m.t)
	m.base = newBase(m.t, m.dir, size)
	m.store = filepath.Join(m.dir, "store")
}

func (m *mapper) must(name string, args ...string) string {
	m.t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		m.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// with calls use with a snapshot device of the kernel. The target is snapshot or
// snapshot-merge.
func (m *mapper) with(target, kind string, chunkSize int, use func(device string)) {
	m.t.Helper()
	m.a = m.must("losetup", "--find", "--show", m.base)
	defer m.must("losetup", "--detach", m.a)
	m.b = m.must("losetup", "--find", "--show", m.store)
	defer m.must("losetup", "--detach", m.b)
	sectors, base := m.must("blockdev", "--getsz", m.a), m.a
	if m.slow {
		m.must("dmsetup", "create", "cowfile-slow", "--table", fmt.Sprintf("0 %s delay %s 0 0 %[2]s 0 5", sectors, m.a))
		defer m.must("dmsetup", "remove", "--retry", "cowfile-slow")
		base = "/dev/mapper/cowfile-slow"
	}
	m.must("dmsetup", "create", "cowfile", "--table", fmt.Sprintf("0 %s %s %s %s %s %d", sectors, target, base, m.b, kind, chunkSize/512))
	defer m.must("dmsetup", "remove", "--retry", "cowfile")
	use("/dev/mapper/cowfile")
}

// status returns the words of dmsetup status behind the target.
func (m *mapper) status() string {
	m.t.Helper()
	words := strings.Fields(m.must("dmsetup", "status", "cowfile"))
	return strings.Join(words[3:], " ")
}

// usage is the status that Inspect expects.
func (m *mapper) usage() (string, *Info) {
	m.t.Helper()
	info, err := Inspect(m.store)
	if err != nil {
		m.t.Fatal(err)
	}
	return fmt.Sprintf("%d/%d %d", info.Usage.Allocated, info.Usage.Total, info.Usage.Metadata), info
}

// disk reads a whole device.
func (m *mapper) disk(path string) []byte {
	m.t.Helper()
	f, err := os.Open(path)
	if err != nil {
		m.t.Fatal(err)
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		m.t.Fatal(err)
	}
	return b
}

// change writes random ranges to a device, and the same to an image.
func (m *mapper) change(device string, image []byte, n int, seed uint64) {
	m.t.Helper()
	f, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		m.t.Fatal(err)
	}
	defer f.Close()
	random := newRandom(seed)
	for range n {
		at := random.IntN(len(image)/512) * 512
		data := randomBytes(random, min(512*(1+random.IntN(20)), len(image)-at))
		copy(image[at:], data)
		write(m.t, f, data, int64(at))
	}
	if err := f.Sync(); err != nil {
		m.t.Fatal(err)
	}
}

// cases are chunk sizes and numbers of exceptions around the end of an area.
var cases = []struct {
	chunkSize, size int
	exceptions      []int
}{
	{4 << 10, 2<<20 + 512, []int{0, 1, 255, 256, 257}},
	{8 << 10, 5<<20 - 1536, []int{511, 512, 513}},
	{64 << 10, 4 << 20, []int{7}},
	{512 << 10, 4<<20 + 512, []int{9}},
}

// A store of ours shows the same in the kernel, which continues it, and the reverse. The
// use of the store is that of dmsetup status.
func TestKernelStoreBothWays(t *testing.T) {
	m := newMapper(t, ublktest.OldestKernel)
	for _, c := range cases {
		for i, n := range c.exceptions {
			t.Run(fmt.Sprintf("%d bytes, %d exceptions", c.chunkSize, n), func(t *testing.T) {
				m.t = t
				m.files(c.size)
				create(t, CreateOptions{Path: m.store, Origin: m.base, ChunkSize: uint32(c.chunkSize)})
				image := change(t, m.store, m.base, n, uint64(i))
				want, _ := m.usage()
				m.with("snapshot", "P", 16<<10, func(device string) { // the header's chunk size counts
					if got := m.status(); got != want {
						t.Errorf("status is %q, want %q", got, want)
					}
					same(t, m.disk(device), image)
					m.change(device, image, 5, uint64(i)+100)
					want = m.status()
				})
				got, info := m.usage()
				if got != want || info.Label == nil {
					t.Errorf("usage is %q, the kernel has %q; label %v", got, want, info.Label)
				}
				same(t, shown(t, layoutOf(t, c.chunkSize), content(t, m.base), content(t, m.store)), image)
				base := content(t, m.base)
				if merged, err := Merge(context.Background(), MergeOptions{Path: m.store}); err != nil || merged.Chunks != info.Chunks {
					t.Errorf("%+v, error %v, want %d chunks", merged, err, info.Chunks)
				}
				same(t, content(t, m.base), image)
				if n > 0 && string(base) == string(image) {
					t.Error("nothing to merge")
				}
			})
		}
	}
}

// The kernel makes a new store in an empty file, and we continue it.
func TestKernelMakesStore(t *testing.T) {
	m := newMapper(t, ublktest.OldestKernel)
	for _, kind := range []string{"P", "PO"} {
		m.files(3<<20 + 512)
		if err := os.WriteFile(m.store, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(m.store, 4<<20); err != nil {
			t.Fatal(err)
		}
		image := content(t, m.base)
		m.with("snapshot", kind, 8<<10, func(device string) { m.change(device, image, 30, 1) })
		_, info := m.usage()
		if info.ChunkSize != 8<<10 || info.Chunks == 0 || info.Label != nil {
			t.Errorf("%+v", info)
		}
		f, err := os.OpenFile(m.store, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		copy(image, shown(t, layoutOf(t, 8<<10), content(t, m.base), content(t, m.store)))
		fillStore(t, f, image, 20, 9)
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		m.with("snapshot", kind, 8<<10, func(device string) { same(t, m.disk(device), image) })
		if _, err := Merge(context.Background(), MergeOptions{Path: m.store}); err == nil || !strings.Contains(err.Error(), "does not say what its base is") {
			t.Errorf("merge without a base: %v", err)
		}
		if _, err := Merge(context.Background(), MergeOptions{Path: m.store, Base: m.base}); err != nil {
			t.Fatal(err)
		}
		same(t, content(t, m.base), image)
	}
}

// stopping is a disk whose writes and flushes fail after some steps.
type stopping struct {
	*os.File
	left *int
}

func (s stopping) step() error {
	if *s.left--; *s.left < 0 {
		return errCut
	}
	return nil
}

func (s stopping) WriteAt(b []byte, at int64) (int, error) {
	if err := s.step(); err != nil {
		return 0, err
	}
	return s.File.WriteAt(b, at)
}

func (s stopping) Sync() error {
	if err := s.step(); err != nil {
		return err
	}
	return s.File.Sync()
}

// The kernel finishes a merge of ours that was stopped at any step.
func TestKernelFinishesOurMerge(t *testing.T) {
	m := newMapper(t, ublktest.OldestKernel)
	m.files(2<<20 + 512)
	create(t, CreateOptions{Path: m.store, Origin: m.base, ChunkSize: 4096})
	image := change(t, m.store, m.base, 300, 1)
	baseBefore, storeBefore := content(t, m.base), content(t, m.store)
	finished := false
	for steps := 0; !finished; steps += 21 / ublktest.Fewer(t, 3, 1) {
		restore(t, m.base, baseBefore)
		restore(t, m.store, storeBefore)
		left := steps
		finished = m.mergeUntil(&left)
		m.with("snapshot-merge", "P", 4096, func(device string) {
			same(t, m.disk(device), image)
			m.waitMerged()
		})
		same(t, content(t, m.base), image)
		if usage, info := m.usage(); info.Chunks != 0 || usage != fmt.Sprintf("16/%d 16", len(storeBefore)/512) {
			t.Fatalf("step %d: usage %s", steps, usage)
		}
	}
}

func restore(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// mergeUntil merges until some steps are done, and reports whether everything is.
func (m *mapper) mergeUntil(left *int) bool {
	m.t.Helper()
	open := func(path string) *os.File {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			m.t.Fatal(err)
		}
		return f
	}
	s, b := open(m.store), open(m.base)
	defer s.Close()
	defer b.Close()
	size := func(f *os.File) uint64 {
		n, err := f.Seek(0, io.SeekEnd)
		if err != nil {
			m.t.Fatal(err)
		}
		return uint64(n)
	}
	x, err := newMerging(stopping{s, left}, stopping{b, left}, layoutOf(m.t, 4096), size(s), size(b))
	if err != nil {
		m.t.Fatal(err)
	}
	x.run = x.run[:20]
	if err := x.all(context.Background()); err != nil && !errors.Is(err, errCut) {
		m.t.Fatal(err)
	}
	return *left >= 0
}

// waitMerging waits until the kernel has merged something: less is allocated than before.
func (m *mapper) waitMerging(before *Info) {
	m.t.Helper()
	ublktest.Until(m.t, time.Minute, "the kernel merges something", func() bool {
		allocated, _ := m.allocated()
		return allocated < before.Usage.Allocated
	})
}

// waitMerged waits until the kernel has merged everything: the allocated sectors are those
// of the metadata.
func (m *mapper) waitMerged() {
	m.t.Helper()
	ublktest.Until(m.t, time.Minute, "the kernel merges everything", func() bool {
		allocated, metadata := m.allocated()
		return allocated == metadata && metadata == 16
	})
}

// allocated returns the sectors that the kernel's status says are allocated, and those of them with metadata.
func (m *mapper) allocated() (all, metadata uint64) {
	m.t.Helper()
	var total uint64
	if _, err := fmt.Sscanf(m.status(), "%d/%d %d", &all, &total, &metadata); err != nil {
		m.t.Fatalf("status %q: %v", m.status(), err)
	}
	return all, metadata
}

// We finish a merge that the kernel has begun, wherever it was.
func TestKernelMergeIsFinishedByUs(t *testing.T) {
	m := newMapper(t, ublktest.OldestKernel, ublktest.Soak)
	m.slow = true
	n := ublktest.Kills(t, ublktest.Fewer(t, 5, 3), 5)
	for i := range n {
		m.files(8 << 20)
		create(t, CreateOptions{Path: m.store, Origin: m.base, ChunkSize: 4096})
		image := change(t, m.store, m.base, 1500, uint64(i))
		_, info := m.usage()
		m.with("snapshot-merge", "P", 4096, func(string) { m.waitMerging(info) })
		_, info = m.usage()
		if merged, err := Merge(context.Background(), MergeOptions{Path: m.store}); err != nil || merged.Chunks != info.Chunks {
			t.Fatalf("%+v, error %v", merged, err)
		}
		same(t, content(t, m.base), image)
		if info.Chunks == 0 || info.Chunks >= 1500 {
			t.Errorf("the kernel has left %d chunks, so that this shows nothing", info.Chunks)
		}
	}
}

// A store is made on a disk only if the beginning of the disk is zero, and the base of a
// store can be a disk.
func TestKernelStoreOnDisk(t *testing.T) {
	m := newMapper(t, ublktest.OldestKernel)
	m.files(1 << 20)
	if err := os.WriteFile(m.store, make([]byte, 4<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	disk := m.must("losetup", "--find", "--show", m.store)
	defer m.must("losetup", "--detach", disk)
	base := m.must("losetup", "--find", "--show", m.base)
	defer m.must("losetup", "--detach", base)
	m.must("mke2fs", "-q", "-t", "ext4", disk)
	o := CreateOptions{Path: disk, Origin: base, ChunkSize: 4096}
	before := m.disk(disk)
	if err := Create(o); !errors.Is(err, snapshot.ErrNotEmpty) {
		t.Fatalf("error %v", err)
	}
	same(t, m.disk(disk), before)
	m.must("blkdiscard", "--zeroout", disk)
	create(t, o)
	image := change(t, disk, base, 20, 1)
	if merged, err := Merge(context.Background(), MergeOptions{Path: disk, Base: base}); err != nil || merged.Chunks != 20 {
		t.Errorf("%+v, error %v", merged, err)
	}
	same(t, m.disk(base), image)
}

// The kernel invalidates a store that ends behind the last data chunk of an area when it uses this
// chunk. It also writes records behind the end of the list again, so that they come back. If one of
// these fails, the kernel has been mended: docs/cow.md then is out of date.
func TestKernelFaultsOfSnapshots(t *testing.T) {
	m := newMapper(t, ublktest.OldestKernel)
	write4K := func(device string, chunk int64) error {
		f, err := os.OpenFile(device, os.O_RDWR|os.O_SYNC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		_, err = f.WriteAt(make([]byte, 4096), chunk*4096)
		return err
	}
	for _, kind := range []string{"P", "PO"} {
		m.files(2 << 20)
		create(t, CreateOptions{Path: m.store, Origin: m.base, ChunkSize: 4096, Size: 258 * 4096})
		m.with("snapshot", kind, 4096, func(device string) {
			for chunk := range int64(256) {
				if err := write4K(device, chunk); err != nil && chunk < 255 {
					t.Fatalf("chunk %d: %v", chunk, err)
				}
			}
			if words := strings.Fields(m.must("dmsetup", "status", "cowfile")); words[len(words)-1] != "Invalid" {
				t.Errorf("%s: status %v of a store with 256 data chunks that are all used", kind, words)
			}
		})
	}

	m.files(2 << 20)
	create(t, CreateOptions{Path: m.store, Origin: m.base, ChunkSize: 4096})
	f, err := os.OpenFile(m.store, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	foreign := []byte(strings.Repeat("foreign ", 512))
	write(t, f, foreign, 4*4096)
	write(t, f, []byte{7, 0, 0, 0, 0, 0, 0, 0, 4}, 4096+16) // record 1; record 0 was lost
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	base := content(t, m.base)
	at7 := func(device string) string { return string(m.disk(device)[7*4096 : 8*4096]) }
	m.with("snapshot", "P", 4096, func(device string) {
		if at7(device) != string(base[7*4096:8*4096]) {
			t.Error("the kernel reads a record behind the end of the list")
		}
		if err := write4K(device, 0); err != nil {
			t.Fatal(err)
		}
	})
	m.with("snapshot", "P", 4096, func(device string) {
		if at7(device) != string(foreign) {
			t.Error("the record behind the end of the list has not come back")
		}
	})
}

func layoutOf(t *testing.T, chunkSize int) snapshot.Layout {
	t.Helper()
	l, err := snapshot.NewLayout(uint32(chunkSize))
	if err != nil {
		t.Fatal(err)
	}
	return l
}
