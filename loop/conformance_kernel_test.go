package loop

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/loop/internal/target"
	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

const deviceSize = 16 << 20

// subject is a device under test, with its file.
type subject struct {
	t      *testing.T
	dev    *Device
	disk   *os.File // the device, opened for direct I/O
	file   *os.File // the device's file
	offset int64    // start of the device in file
	mem    []byte   // aligned memory of 1 MiB
}

// conformance lists the behaviour that every mode must have.
var conformance = map[string]func(*subject){
	"reads what the file holds":         (*subject).readsTheFile,
	"writes reach the file":             (*subject).writesReachTheFile,
	"the largest request":               (*subject).largestRequest,
	"one sector at either end":          (*subject).edges,
	"flush":                             (*subject).flush,
	"FUA":                               (*subject).fua,
	"discard gives space back":          (*subject).discard,
	"write-zeroes with unmap":           (*subject).zeroesWithUnmap,
	"write-zeroes without unmap":        (*subject).zeroesWithoutUnmap,
	"random operations match the model": (*subject).model,
}

// mode is a way to run a device.
type mode struct {
	zeroCopy ublk.BufferMode
	fallback bool // the driver finds its slots of the buffer table in use
	direct   Switch
	sector   uint32
	queues   int
	threads  *ublk.Threads // nil for threads of its own
}

func (m mode) String() string {
	name := m.zeroCopy.String()
	if m.fallback {
		name += " falling back"
	}
	return fmt.Sprintf("%s, direct %s, sectors of %d, %d queues", name, m.direct, m.sector, m.queues)
}

// modes returns all tested modes: each buffer mode with and without direct I/O, combined
// with various other options. directSector is the smallest sector size for which the
// backing supports direct I/O, 0 if it has no direct I/O.
func modes(directSector uint32) []mode {
	var list []mode
	for i, buffers := range []mode{
		{zeroCopy: ublk.BufferCopy},
		{zeroCopy: ublk.BufferRegister},
		{zeroCopy: ublk.BufferAutoRegister},
		{zeroCopy: ublk.BufferAutoRegister, fallback: true},
	} {
		for j, direct := range []Switch{SwitchOff, SwitchOn} {
			m := buffers
			m.direct = direct
			m.sector = []uint32{512, 4096, 1024, 2048}[(2*i+j)%4]
			m.queues = 1 + (i+j)%2
			if direct == SwitchOn {
				m.sector = max(m.sector, directSector)
			}
			if direct == SwitchOff || directSector > 0 {
				list = append(list, m)
			}
		}
	}
	return list
}

func TestKernelConformance(t *testing.T) {
	ctl := ublktest.Kernel(t, ublktest.EveryKernel)
	for row, name := range slices.Sorted(maps.Keys(backings)) {
		b := backings[name]
		t.Run(name, func(t *testing.T) {
			path := b.make(t)
			all := modes(b.directSector)
			for half := range len(all) / 2 {
				for _, m := range ublktest.Sample(t, half+row, all[2*half], all[2*half+1]) {
					t.Run(m.String(), func(t *testing.T) { conform(t, ctl, path, m) })
				}
			}
		})
	}
}

func conform(t *testing.T, ctl *ublk.Control, path string, m mode) {
	s := attachMode(t, ctl, path, m)
	for _, name := range slices.Sorted(maps.Keys(conformance)) {
		t.Run(name, func(t *testing.T) {
			s.t = t
			conformance[name](s)
		})
	}
}

// attachMode attaches a file in exactly one mode, or skips the test if the kernel does
// not offer the mode. wrap can replace the target.
func attachMode(t *testing.T, ctl *ublk.Control, path string, m mode, wrap ...func(ublk.Target) ublk.Target) *subject {
	t.Helper()
	needMode(t, ctl, m.zeroCopy)
	file := openPath(t, path)
	b, err := openBacking(file, &Config{DirectIO: m.direct, SectorSize: m.sector, Offset: 1 << 20, SizeLimit: deviceSize})
	if err != nil {
		t.Fatal(err)
	}
	d := &Device{b: b, storage: b}
	cfg := Config{Queues: m.queues}
	if d.dev, err = ctl.Add(ublk.Options{Mode: m.zeroCopy, Queues: m.queues, MaxIOBytes: b.MaxIOBytes(m.zeroCopy), Tag: newTag(), NoPartScan: true, Threads: m.threads}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	var tgt ublk.Target = &target.Target{Backing: b}
	if m.fallback {
		tgt = occupied{tgt, alignedMemory(t, 4096)}
	}
	for _, w := range wrap {
		tgt = w(tgt)
	}
	if err := d.start(&cfg, tgt); err != nil {
		t.Fatal(err)
	}
	s := &subject{t: t, dev: d, offset: 1 << 20, mem: alignedMemory(t, 1<<20)}
	s.disk = openFile(t, d.Path(), os.O_RDWR|unix.O_DIRECT)
	s.file = openFile(t, path, os.O_RDWR)
	return s
}

// needMode skips a test if the kernel does not offer a buffer mode.
func needMode(t *testing.T, ctl *ublk.Control, mode ublk.BufferMode) {
	t.Helper()
	if !offers(t, ctl, mode) {
		ublktest.Lacks(t, map[ublk.BufferMode]ublktest.Ability{
			ublk.BufferRegister: ublktest.ZeroCopy, ublk.BufferAutoRegister: ublktest.AutoRegister,
		}[mode])
	}
}

// offers reports whether the kernel offers a buffer mode. It adds a device to find out.
func offers(t *testing.T, ctl *ublk.Control, mode ublk.BufferMode) bool {
	t.Helper()
	dev, err := ctl.Add(ublk.Options{Mode: mode})
	if errors.Is(err, ublk.ErrNotSupported) && mode != ublk.BufferCopy {
		return false
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := dev.Close(); err != nil {
		t.Fatal(err)
	}
	return true
}

// occupied is a target that uses every other slot of its queues' buffer tables, so that
// the driver must leave the registration to a command.
type occupied struct {
	ublk.Target
	page []byte
}

func (o occupied) NewHandler(q *ublk.Queue) (ublk.Handler, error) {
	for tag := 0; tag < q.Depth(); tag += 2 {
		if err := q.Ring().UpdateBuffers(q.BufferSlot(tag), [][]byte{o.page}); err != nil {
			return nil, err
		}
	}
	return o.Target.NewHandler(q)
}

// fileBytes returns the backing's content behind a range of the device. It drops the page
// cache first, for a device with direct I/O.
func (s *subject) fileBytes(off int64, n int) []byte {
	s.t.Helper()
	_ = unix.Fadvise(int(s.file.Fd()), 0, 0, unix.FADV_DONTNEED)
	p := make([]byte, n)
	if _, err := s.file.ReadAt(p, s.offset+off); err != nil {
		s.t.Fatal(err)
	}
	return p
}

func (s *subject) write(p []byte, off int64) {
	s.t.Helper()
	if _, err := s.disk.WriteAt(p, off); err != nil {
		s.t.Fatal(err)
	}
}

func (s *subject) read(n int, off int64) []byte {
	s.t.Helper()
	if _, err := s.disk.ReadAt(s.mem[:n], off); err != nil {
		s.t.Fatal(err)
	}
	return slices.Clone(s.mem[:n])
}

func (s *subject) equal(what string, got, want []byte) {
	s.t.Helper()
	if !bytes.Equal(got, want) {
		s.t.Fatalf("%s: %s", what, firstDifference(got, want))
	}
}

func (s *subject) readsTheFile() {
	want := random(make([]byte, 64<<10))
	if _, err := s.file.WriteAt(want, s.offset+(2<<20)); err != nil {
		s.t.Fatal(err)
	}
	if err := s.file.Sync(); err != nil {
		s.t.Fatal(err)
	}
	s.equal("read", s.read(64<<10, 2<<20), want)
}

func (s *subject) writesReachTheFile() {
	data := random(s.mem[:64<<10])
	s.write(data, 3<<20)
	s.equal("file", s.fileBytes(3<<20, 64<<10), data)
	s.equal("read", s.read(64<<10, 3<<20), s.fileBytes(3<<20, 64<<10))
}

func (s *subject) largestRequest() {
	n := min(int(s.dev.dev.Info().MaxIOBytes), len(s.mem))
	data := random(s.mem[:n])
	s.write(data, 4<<20)
	want := slices.Clone(data)
	s.equal("file", s.fileBytes(4<<20, n), want)
	s.equal("read", s.read(n, 4<<20), want)
}

func (s *subject) edges() {
	sector := int(s.dev.b.SectorSize)
	for _, off := range []int64{0, deviceSize - int64(sector)} {
		data := slices.Clone(random(s.mem[:sector]))
		s.write(s.mem[:sector], off)
		s.equal("file", s.fileBytes(off, sector), data)
		s.equal("read", s.read(sector, off), data)
	}
	if _, err := s.disk.WriteAt(s.mem[:sector], deviceSize); err == nil {
		s.t.Fatal("a write behind the end succeeded")
	}
}

func (s *subject) flush() {
	s.write(random(s.mem[:4096]), 0)
	if err := s.disk.Sync(); err != nil {
		s.t.Fatal(err)
	}
}

func (s *subject) fua() {
	data := slices.Clone(random(s.mem[:8192]))
	iov := [][]byte{s.mem[:8192]}
	if _, err := unix.Pwritev2(int(s.disk.Fd()), iov, 5<<20, unix.RWF_DSYNC); err != nil {
		s.t.Fatal(err)
	}
	s.equal("file", s.fileBytes(5<<20, 8192), data)
}

func (s *subject) limits() Limits {
	s.t.Helper()
	p, err := s.dev.b.Params(s.dev.dev.Mode(), s.dev.dev.Info().MaxIOBytes)
	if err != nil {
		s.t.Fatal(err)
	}
	return limitsOf(&p)
}

// fillRange writes bytes that are not zero.
func (s *subject) fillRange(off int64, n int) {
	s.t.Helper()
	for done := 0; done < n; done += len(s.mem) {
		s.write(random(s.mem[:min(n-done, len(s.mem))]), off+int64(done))
	}
}

// blocks returns the space that the file takes, in units of 512 bytes. It synchronizes the whole file system,
// because fsync waits for the data of btrfs and not for the extents that the space is counted by
// (btrfs_sync_file in fs/btrfs/file.c).
func (s *subject) blocks() int64 {
	s.t.Helper()
	if err := unix.Syncfs(int(s.file.Fd())); err != nil {
		s.t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(s.file.Fd()), &st); err != nil {
		s.t.Fatal(err)
	}
	return st.Blocks
}

func (s *subject) discard() {
	s.fillRange(8<<20, 2<<20)
	before := s.blocks()
	if err := blockIoctl(s.disk, unix.BLKDISCARD, 8<<20, 2<<20); err != nil {
		s.t.Fatal(err)
	}
	if after := s.blocks(); !s.dev.b.IsDisk && before-after < 2<<20/512*9/10 {
		s.t.Fatalf("a discard of 2 MiB freed %d bytes", (before-after)*512)
	}
	s.equal("read", s.read(1<<20, 8<<20), make([]byte, 1<<20))
}

func (s *subject) zeroesWithUnmap() {
	s.fillRange(8<<20, 1<<20)
	before := s.blocks()
	err := unix.Fallocate(int(s.disk.Fd()), punchHole, 8<<20, 1<<20)
	if s.dev.b.IsDisk && s.limits().WriteZeroesMaxBytes == 0 && errors.Is(err, unix.EOPNOTSUPP) {
		return // not announced, because the backing disk cannot do it
	}
	if err != nil {
		s.t.Fatal(err)
	}
	s.equal("read", s.read(1<<20, 8<<20), make([]byte, 1<<20))
	s.equal("file", s.fileBytes(8<<20, 1<<20), make([]byte, 1<<20))
	if after := s.blocks(); !s.dev.b.IsDisk && before-after < 1<<20/512*9/10 {
		s.t.Fatalf("unmapping 1 MiB freed %d bytes", (before-after)*512)
	}
}

func (s *subject) zeroesWithoutUnmap() {
	s.fillRange(8<<20, 1<<20)
	before := s.blocks()
	if err := blockIoctl(s.disk, unix.BLKZEROOUT, 8<<20, 1<<20); err != nil {
		s.t.Fatal(err)
	}
	s.equal("read", s.read(1<<20, 8<<20), make([]byte, 1<<20))
	s.equal("file", s.fileBytes(8<<20, 1<<20), make([]byte, 1<<20))
	if after := s.blocks(); !s.dev.b.IsDisk && after < before {
		s.t.Fatalf("zeroing in place freed %d bytes", (before-after)*512)
	}
}

// model does random operations on the device and on memory, and compares both.
func (s *subject) model() {
	const size, start = 1 << 20, 10 << 20
	sector := int(s.dev.b.SectorSize)
	source := seeded(s.t)
	r := rand.New(source)
	model := s.read(size, start)
	for i := range 150 {
		n := sector * (1 + r.IntN(32))
		off := r.IntN((size-n)/sector+1) * sector
		at := int64(start + off)
		switch r.IntN(5) {
		case 0, 1:
			s.write(fill(s.mem[:n], source), at)
			copy(model[off:], s.mem[:n])
		case 2:
			if err := blockIoctl(s.disk, unix.BLKZEROOUT, uint64(at), uint64(n)); err != nil {
				s.t.Fatal(err)
			}
			clear(model[off : off+n])
		case 3:
			if err := s.disk.Sync(); err != nil {
				s.t.Fatal(err)
			}
		case 4:
			s.equal(fmt.Sprintf("operation %d, %d bytes at %d", i, n, at), s.read(n, at), model[off:off+n])
		}
	}
	s.equal(fmt.Sprintf("all of it, from %d on", start), s.read(size, start), model)
	s.equal(fmt.Sprintf("the file, from %d on", start), s.fileBytes(start, size), model)
}

// backings make files and disks of at least 32 MiB for a device.
var backings = map[string]struct {
	directSector uint32
	make         func(*testing.T) string
}{
	"file on ext4":  {512, func(t *testing.T) string { return sparseFile(t, fileSystem(t, "ext4")) }},
	"file on xfs":   {512, func(t *testing.T) string { return sparseFile(t, fileSystem(t, "xfs")) }},
	"file on btrfs": {4096, func(t *testing.T) string { return sparseFile(t, fileSystem(t, "btrfs")) }},
	"file on tmpfs": {0, func(t *testing.T) string { return sparseFile(t, mountTmpfs(t)) }},
	"disk":          {512, func(t *testing.T) string { return nullDisk(t, 64, nil) }},
}

func sparseFile(t *testing.T, dir string) string {
	t.Helper()
	path := filepath.Join(dir, "image")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(32 << 20); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}
