package backing

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// fakeSysfs is a directory with the layout of /sys.
type fakeSysfs struct {
	t   testing.TB
	dir string
}

func newSysfs(t testing.TB) *fakeSysfs {
	t.Helper()
	leavesNoFiles(t)
	s := &fakeSysfs{t, t.TempDir()}
	if err := os.MkdirAll(filepath.Join(s.dir, "dev/block"), 0o700); err != nil {
		t.Fatal(err)
	}
	return s
}

// leavesNoFiles checks at the end of the test that no more files are open than now.
func leavesNoFiles(t testing.TB) {
	t.Helper()
	f, err := os.Open(os.DevNull) // Go opens files of its own with the first one
	if err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
	before := openFiles(t)
	t.Cleanup(func() {
		if after := openFiles(t); after != before {
			t.Errorf("%d files are open, %d before", after, before)
		}
	})
}

// openFiles returns how many files this process has open.
func openFiles(t testing.TB) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// disk adds a disk or partition: a directory of attributes, and the link to it by its
// number.
func (s *fakeSysfs) disk(number, where string, attrs map[string]string) {
	s.t.Helper()
	for name, value := range attrs {
		s.write(where+"/"+name, value+"\n")
	}
	if err := os.Symlink("../../"+where, filepath.Join(s.dir, "dev/block", number)); err != nil {
		s.t.Fatal(err)
	}
}

func (s *fakeSysfs) write(name, value string) {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(value), 0o600)); err != nil {
		s.t.Fatal(err)
	}
}

func (s *fakeSysfs) root() *os.Root {
	s.t.Helper()
	root, err := os.OpenRoot(s.dir)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = root.Close() })
	return root
}

// limits reads the limits of the disk 8:minor.
func (s *fakeSysfs) limits(minor uint32) (queueLimits, error) {
	b := &Backing{IsDisk: true, Rdev: unix.Mkdev(8, minor)}
	return b.readLimits(s.dir)
}

// oddDisk returns attributes with unusual values.
func oddDisk() map[string]string {
	return map[string]string{
		"queue/logical_block_size":     "1024",
		"queue/physical_block_size":    "8192",
		"queue/minimum_io_size":        "16384",
		"queue/optimal_io_size":        "196608",
		"queue/max_hw_sectors_kb":      "127",
		"queue/chunk_sectors":          "384",
		"queue/virt_boundary_mask":     "4095",
		"queue/dma_alignment":          "7",
		"queue/max_segments":           "13",
		"queue/max_segment_size":       "12288",
		"queue/discard_granularity":    "24576",
		"queue/discard_max_bytes":      "25165824",
		"queue/discard_max_hw_bytes":   "2199023255040",
		"queue/write_zeroes_max_bytes": "1073741824",
		"queue/rotational":             "1",
		"queue/write_cache":            "write through",
		"queue/fua":                    "1",
		"queue/zoned":                  "host-managed",
		"discard_alignment":            "999",
	}
}

// oddLimits are the limits of oddDisk.
func oddLimits() queueLimits {
	return queueLimits{
		logicalBlockSize: 1024, physicalBlockSize: 8192, minimumIOSize: 16384, optimalIOSize: 196608,
		maxHWBytes: 127 << 10, chunkBytes: 384 << 9,
		virtBoundaryMask: 4095, dmaAlignment: 7, maxSegments: 13, maxSegmentSize: 12288,
		discardGranularity: 24576, discardMaxBytes: 25165824, writeZeroesMaxBytes: 1 << 30,
		rotational: true, fua: true, zoned: true,
	}
}

func TestSysfsDisk(t *testing.T) {
	s := newSysfs(t)
	s.disk("8:0", "devices/pci0/sda", oddDisk())
	if got, err := s.limits(0); err != nil || got != oddLimits() {
		t.Errorf("limits %+v, error %v, want %+v", got, err, oddLimits())
	}
}

// A partition has its disk's queue, but its own start and discard alignment.
func TestSysfsPartition(t *testing.T) {
	s := newSysfs(t)
	s.disk("8:0", "devices/pci0/sda", oddDisk())
	s.disk("8:1", "devices/pci0/sda/sda1", map[string]string{"partition": "1", "start": "2049", "discard_alignment": "3584"})
	want := oddLimits()
	want.start, want.discardAlignment = 2049<<9, 3584
	if got, err := s.limits(1); err != nil || got != want {
		t.Errorf("limits %+v, error %v, want %+v", got, err, want)
	}
}

// On a kernel without some attributes, they have the values from before their
// introduction.
func TestSysfsMissingAttributes(t *testing.T) {
	s := newSysfs(t)
	s.disk("8:0", "devices/sda", map[string]string{"queue/logical_block_size": "4096"})
	want := queueLimits{
		logicalBlockSize: 4096, physicalBlockSize: 512, maxHWBytes: 1 << 20,
		dmaAlignment: 511, maxSegmentSize: 1<<32 - 1, writeCache: true,
	}
	if got, err := s.limits(0); err != nil || got != want {
		t.Errorf("limits %+v, error %v, want %+v", got, err, want)
	}
}

func TestSysfsBadAttribute(t *testing.T) {
	for _, value := range []string{"-1", "x", "0x10", "18446744073709551616", "1 2"} {
		s := newSysfs(t)
		s.disk("8:0", "devices/sda", map[string]string{"queue/max_segments": value})
		_, err := s.limits(0)
		wantHint(t, err, unix.EINVAL, "dev/block/8:0/queue/max_segments", "")
	}
}

// A disk must be in sysfs. A file need not have a disk.
func TestSysfsMissingDisk(t *testing.T) {
	s := newSysfs(t)
	if _, err := s.limits(0); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a disk: error %v, want ErrNotExist", err)
	}
	file := &Backing{FD: -1, Dev: unix.Mkdev(8, 0)}
	if got, err := file.readLimits(s.dir); err != nil || got != defaultLimits() {
		t.Errorf("a file: %+v, error %v", got, err)
	}
	anonymous := &Backing{FD: -1, Dev: unix.Mkdev(0, 40)}
	if got, err := anonymous.readLimits(s.dir); err != nil || got != defaultLimits() {
		t.Errorf("a file of no disk: %+v, error %v", got, err)
	}
	s.disk("8:0", "devices/sda", map[string]string{"queue/max_hw_sectors_kb": "64"})
	if got, err := file.readLimits(s.dir); err != nil || got.maxHWBytes != 64<<10 {
		t.Errorf("a file of a disk: %+v, error %v", got, err)
	}
}

func TestParseNumber(t *testing.T) {
	for text, want := range map[string]uint64{"0": 0, "4096": 4096, "0010": 10, "18446744073709551615": 1<<64 - 1} {
		if got, err := parseNumber(text); err != nil || got != want {
			t.Errorf("%q is %d, error %v", text, got, err)
		}
	}
	for _, text := range []string{"", "-1", "+1", "1_0", "0x10", "1 ", "18446744073709551616"} {
		if got, err := parseNumber(text); !errors.Is(err, unix.EINVAL) {
			t.Errorf("%q is %d, error %v", text, got, err)
		}
	}
}

func FuzzParseNumber(f *testing.F) {
	for _, seed := range []string{"0", "4096", "-1", "18446744073709551615", "18446744073709551616", "", "+1", "1_0"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		n, err := parseNumber(text)
		if err != nil {
			if !errors.Is(err, unix.EINVAL) {
				t.Errorf("%q: error %v is no EINVAL", text, err)
			}
			return
		}
		for len(text) > 1 && text[0] == '0' {
			text = text[1:]
		}
		if got := strconv.FormatUint(n, 10); got != text {
			t.Errorf("%q was read as %s", text, got)
		}
	})
}

// Sysfs is searched once for the limits of a disk, not for each of them.
func TestLimitsSearchOnce(t *testing.T) {
	s := newSysfs(t)
	s.disk("8:0", "devices/sda", map[string]string{"queue/logical_block_size": "4096", "queue/fua": "1"})
	s.disk("8:1", "devices/sda/sda1", map[string]string{"partition": "1", "start": "8", "discard_alignment": "0"})
	for minor := range uint32(2) {
		events, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := unix.InotifyAddWatch(events, filepath.Join(s.dir, "dev"), unix.IN_OPEN|unix.IN_ONLYDIR); err != nil {
			t.Fatal(err)
		}
		if lim, err := s.limits(minor); err != nil || lim.logicalBlockSize != 4096 {
			t.Errorf("the limits are %+v, error %v", lim, err)
		}
		opens, buffer := 0, make([]byte, 1<<16)
		for {
			n, err := unix.Read(events, buffer)
			if errors.Is(err, unix.EAGAIN) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			for at := 0; at < n; at += unix.SizeofInotifyEvent + int(buffer[at+12]) {
				opens++
			}
		}
		_ = unix.Close(events)
		if opens == 0 || opens > 8 {
			t.Errorf("8:%d: the directory dev is opened %d times", minor, opens)
		}
	}
}
