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

	"github.com/ublk-loop/ublk-loop/transfer"
	"github.com/ublk-loop/ublk-loop/transfer/table"
	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// attachTable attaches a table of disks and files. The device ends with the test.
func attachTable(t testing.TB, ctl *ublk.Control, text string, cfg Config) *Device {
	t.Helper()
	dev, err := tryTable(ctl, text, cfg)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	t.Cleanup(func() {
		if err := dev.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return dev
}

// tryTable attaches a table.
func tryTable(ctl *ublk.Control, text string, cfg Config) (*Device, error) {
	tables, err := ParseTable([]byte(text))
	if err != nil {
		return nil, err
	}
	defer tables.Close()
	var files []*os.File
	defer func() {
		for _, f := range files {
			_ = f.Close()
		}
	}()
	for _, device := range tables.Devices() {
		file, err := OpenTableDevice(device)
		if err != nil {
			return nil, err
		}
		files = append(files, file)
	}
	cfg.Table = tables.Text()
	if cfg.Key, err = keysIn(tables); err != nil {
		return nil, err
	}
	return AttachTable(ctl, files, cfg)
}

// keysIn returns the keys in the text of a table, one after another.
func keysIn(tables *table.Stack) (*transfer.Secret, error) {
	var keys []byte
	for i := range tables.Tables {
		for _, l := range tables.Tables[i].Lines {
			if c, ok := l.Target.(*table.Crypt); ok && c.Key.Secret != nil {
				keys = append(keys, c.Key.Secret.Bytes()...)
			}
		}
	}
	if keys == nil {
		return nil, nil
	}
	secret, err := transfer.NewSecret(len(keys))
	if err == nil {
		copy(secret.Bytes(), keys)
	}
	return secret, err
}

// withDisks replaces $0, $1, … in the text of a table by disks.
func withDisks(text string, disks ...string) string {
	for i, disk := range disks {
		text = strings.ReplaceAll(text, fmt.Sprintf("$%d", i), disk)
	}
	return text
}

// mappedTables are tables whose bytes are compared with those of the kernel's device, on disks
// of 16 MiB.
var mappedTables = map[string]string{
	"linear":          "0 8192 linear $0 2048",
	"three lines":     "0 1024 linear $0 8\n1024 520 linear $1 16\n1544 2048 linear $0 1032",
	"joined lines":    "0 1024 linear $0 8\n1024 1024 linear $0 1032",
	"stripes of 4K":   "0 4096 striped 2 8 $0 0 $1 64",
	"stripes of 24K":  "0 4608 striped 3 48 $0 0 $1 1024 $2 4096",
	"stripes of 128K": "0 8192 striped 2 256 $0 256 $1 0",
	"odd chunk":       "0 3000 striped 2 100 $0 8 $1 0\n3000 1000 linear $2 0",
	"stripes of one":  "0 2000 striped 2 1 $0 8 $1 0",
	"crypt":           "0 4096 crypt aes-xts-plain64 " + hexKey + " 16 $0 8",
	"crypt of 4K":     "0 4096 crypt aes-xts-plain64 " + hexKey + " 8 $0 16 3 allow_discards sector_size:4096 iv_large_sectors",
	"crypt and parts": "0 1000 linear $0 8\n1000 1048 crypt aes-xts-plain64 " + hexKey + " 0 $1 0\n2048 2048 crypt aes-xts-plain64 " + hexKey[:64] + " 3 $2 8 1 allow_discards",
	"zero":            "0 1000 linear $0 8\n1000 520 zero\n1520 480 linear $1 0",
}

// hexKey is a key of 64 bytes in the text of a table.
var hexKey = hex.EncodeToString(testKey)

// What is written through a device of tables is what the kernel's device of the same table
// reads, and the reverse, for writes and discards at random places and of random sizes.
func TestKernelTableBothWays(t *testing.T) {
	ctl := ublktest.Kernel(t, ublktest.OldestKernel)
	run(t, "modprobe", "-a", "dm_zero", "dm_crypt")
	disks := []string{nullDisk(t, 16, sectorDisk), nullDisk(t, 16, sectorDisk), nullDisk(t, 16, sectorDisk)}
	for row, name := range slices.Sorted(maps.Keys(mappedTables)) {
		text := mappedTables[name]
		for _, zeroCopy := range ublktest.Sample(t, row, SwitchAuto, SwitchOff) {
			t.Run(name+", zero copy "+string(zeroCopy), func(t *testing.T) {
				bothWays(t, ctl, withDisks(text, disks...), Config{ZeroCopy: zeroCopy})
			})
		}
	}
}

// sectorDisk are the attributes of a null disk with sectors of 512 bytes.
var sectorDisk = map[string]string{"blocksize": "512"}

// bothWays compares a device of tables with the kernel's: each in turn is written and then
// read through the other.
func bothWays(t *testing.T, ctl *ublk.Control, text string, cfg Config) {
	t.Helper()
	var content []byte // of the device
	steps := []string{"kernel", "ours", "kernel", "ours"}
	if testing.Short() {
		steps = steps[:3] // each has read what the other wrote
	}
	for _, step := range steps {
		t.Run(step, func(t *testing.T) {
			var path string
			if step == "kernel" {
				path = mappedDisk(t, text)
			} else {
				path = attachTable(t, ctl, text, cfg).Path()
			}
			f := openFile(t, path, os.O_RDWR|unix.O_DIRECT)
			got := readDisk(t, f)
			if content != nil && !bytes.Equal(got, content) {
				t.Fatal(firstDifference(got, content))
			}
			was := &written{content: got, unknown: make([]bool, len(got)/512), zero: zeroSectors(t, text)}
			change(t, f, was)
			content = readDisk(t, f)
			was.compare(t, content)
		})
	}
}

// readDisk reads a whole disk, in pieces of random sizes.
func readDisk(t *testing.T, f *os.File) []byte {
	t.Helper()
	size, err := f.Seek(0, unix.SEEK_END)
	if err != nil {
		t.Fatal(err)
	}
	content := alignedMemory(t, int(size))
	for at := 0; at < len(content); {
		n := min(4096*(1+rand.IntN(128)), len(content)-at)
		if _, err := f.ReadAt(content[at:at+n], int64(at)); err != nil {
			t.Fatal(err)
		}
		at += n
	}
	return bytes.Clone(content)
}

// written is what a disk must have after writes and discards. Discarded sectors may have
// anything; others must not change.
type written struct {
	content []byte
	unknown []bool // sectors that were discarded after the last write
	zero    []bool // sectors that stay zero
}

// zeroSectors returns the sectors of the target zero in a table.
func zeroSectors(t *testing.T, text string) (sectors []bool) {
	t.Helper()
	tables, err := ParseTable([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	defer tables.Close()
	for _, l := range tables.Tables[len(tables.Tables)-1].Lines {
		_, isZero := l.Target.(*table.Zero)
		sectors = append(sectors, slices.Repeat([]bool{isZero}, int(l.Length))...)
	}
	return sectors
}

// set records a write of data, or a discard of n bytes.
func (w *written) set(at, n int, data []byte) {
	for sector := at / 512; sector < (at+n)/512; sector++ {
		if w.zero[sector] {
			continue
		}
		if w.unknown[sector] = data == nil; data != nil {
			copy(w.content[sector*512:(sector+1)*512], data[sector*512-at:])
		}
	}
}

func (w *written) compare(t *testing.T, got []byte) {
	t.Helper()
	for sector, unknown := range w.unknown {
		at, end := sector*512, (sector+1)*512
		if !unknown && !bytes.Equal(got[at:end], w.content[at:end]) {
			t.Fatalf("sector %d has other bytes than were written", sector)
		}
	}
}

// changeDisk writes and discards at random.
func changeDisk(t *testing.T, f *os.File, size int) {
	t.Helper()
	change(t, f, &written{content: make([]byte, size), unknown: make([]bool, size/512), zero: make([]bool, size/512)})
}

// change writes and discards at random, and records that.
func change(t *testing.T, f *os.File, w *written) {
	t.Helper()
	size := len(w.content)
	mem := alignedMemory(t, 1<<20)
	sector, err := unix.IoctlGetInt(int(f.Fd()), unix.BLKSSZGET)
	if err != nil {
		t.Fatal(err)
	}
	changes := 200
	if testing.Short() {
		changes = 50
	}
	for i := range changes {
		at := sector * rand.IntN(size/sector)
		n := min(sector*(1+rand.IntN(1<<rand.IntN(12))), size-at, len(mem))
		if i%10 == 9 {
			if err := blockIoctl(f, unix.BLKDISCARD, uint64(at), uint64(n)); err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
				t.Fatal(err)
			}
			w.set(at, n, nil)
			continue
		}
		if _, err := f.WriteAt(random(mem[:n]), int64(at)); err != nil {
			t.Fatalf("write %d bytes at %d: %v", n, at, err)
		}
		w.set(at, n, mem[:n])
	}
}

// The error target fails reads and writes with EIO, as the kernel's does, and a request that
// it is a part of.
func TestKernelTableErrors(t *testing.T) {
	ctl := ublktest.Kernel(t)
	disk := nullDisk(t, 16, sectorDisk)
	text := withDisks("0 1000 linear $0 0\n1000 8 error\n1008 1000 linear $0 1008", disk)
	for _, path := range []func(*testing.T) string{
		func(t *testing.T) string { return mappedDisk(t, text) },
		func(t *testing.T) string { return attachTable(t, ctl, text, Config{}).Path() },
	} {
		t.Run("", func(t *testing.T) {
			f := openFile(t, path(t), os.O_RDWR|unix.O_DIRECT)
			mem := alignedMemory(t, 16<<10)
			for at := int64(992); at < 1024; at += 4 {
				_, rerr := f.ReadAt(mem[:2048], at*512)
				_, werr := f.WriteAt(mem[:2048], at*512)
				if failed := at > 996 && at < 1008; errors.Is(rerr, unix.EIO) != failed || errors.Is(werr, unix.EIO) != failed {
					t.Errorf("sector %d: read %v, write %v", at, rerr, werr)
				}
			}
			if err := f.Sync(); err != nil {
				t.Errorf("flush: %v", err)
			}
		})
	}
}

// Each request is as many operations on each disk as the table makes of it: one for each run of
// sectors, whatever the buffer mode.
func TestKernelTableOperations(t *testing.T) {
	ctl := ublktest.Kernel(t, ublktest.OldestKernel)
	disks := []string{nullDisk(t, 64, nil), nullDisk(t, 64, nil)}
	for _, disk := range disks {
		noMerges(t, disk)
	}
	for _, tt := range []struct {
		text string
		size int
		want [2]uint64 // operations on each disk for a request
	}{
		{"0 16384 linear $0 8", 64 << 10, [2]uint64{1, 0}},
		{joined(32, 512), 64 << 10, [2]uint64{1, 0}},
		{"0 16384 striped 1 8 $0 0", 64 << 10, [2]uint64{1, 0}},
		// Every second chunk continues the one before it.
		{"0 16384 striped 2 8 $0 0 $0 8", 32 << 10, [2]uint64{4, 0}},
		{"low,,,,0 8192 striped 2 8 $0 0 $1 0,8192 8192 linear $0 8192;top,,,,0 16384 linear /dev/mapper/low 0", 32 << 10, [2]uint64{4, 4}},
		{"0 16384 striped 2 8 $0 0 $1 0", 4096, [2]uint64{1, 0}},
		{"0 16384 striped 2 8 $0 0 $1 0", 32 << 10, [2]uint64{4, 4}},
		{"0 16384 striped 2 32 $0 0 $1 0", 64 << 10, [2]uint64{2, 2}},
	} {
		for _, zeroCopy := range []Switch{SwitchAuto, SwitchOff} {
			t.Run(fmt.Sprintf("%.60s, %d bytes, zero copy %s", tt.text, tt.size, zeroCopy), func(t *testing.T) {
				dev := attachTable(t, ctl, withDisks(tt.text, disks...), Config{ZeroCopy: zeroCopy, DirectIO: SwitchOn})
				noMerges(t, dev.Path())
				countParts(t, dev.Path(), disks, tt.size, tt.want)
			})
		}
	}
}

// joined returns lines of some sectors that continue each other on a disk.
func joined(sectors, count int) string {
	var lines []string
	for i := range count {
		lines = append(lines, fmt.Sprintf("%d %d linear $0 %d", i*sectors, sectors, 8+i*sectors))
	}
	return strings.Join(lines, "\n")
}

// countParts writes and reads ten times, and compares the counters of the disks.
func countParts(t *testing.T, device string, disks []string, size int, each [2]uint64) {
	t.Helper()
	const n = 10
	f := openFile(t, device, os.O_RDWR|unix.O_DIRECT)
	mem := alignedMemory(t, size)
	before := [2]ioCount{countIO(t, disks[0]), countIO(t, disks[1])}
	for i := range n {
		// Twice the size, so that each request begins on the first disk.
		if _, err := f.WriteAt(mem, int64(2*i*size)); err != nil {
			t.Fatal(err)
		}
		if _, err := f.ReadAt(mem, int64(2*i*size)); err != nil {
			t.Fatal(err)
		}
	}
	for i, disk := range disks {
		sectors := uint64(n*size/512) * each[i] / (each[0] + each[1])
		want := ioCount{n * each[i], sectors, n * each[i], sectors}
		// The kernel counts an operation after it has woken the waiting process.
		var got ioCount
		waitUntil(t, disk+" counts its operations", func() bool {
			got = countIO(t, disk).minus(before[i])
			return got.reads >= want.reads && got.writes >= want.writes
		})
		if got != want {
			t.Errorf("%s: %+v, want %+v", disk, got, want)
		}
	}
}

// No request of a device of tables makes the server allocate memory.
func TestKernelTableAllocatesNothing(t *testing.T) {
	ctl := ublktest.Kernel(t, ublktest.Plain)
	disks := []string{nullDisk(t, 16, sectorDisk), nullDisk(t, 16, sectorDisk)}
	text := withDisks("0 8192 striped 2 8 $0 0 $1 64\n8192 8 zero\n8200 1016 linear $0 8192", disks...)
	for _, zeroCopy := range []Switch{SwitchAuto, SwitchOff} {
		dev := attachTable(t, ctl, text, Config{ZeroCopy: zeroCopy, Queues: 1})
		f := openFile(t, dev.Path(), os.O_RDWR|unix.O_DIRECT)
		fd, mem := int(f.Fd()), alignedMemory(t, 64<<10)
		const rounds = 500
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for i := range rounds {
			off := int64(i%72) * 64 << 10
			_, werr := unix.Pwrite(fd, mem, off)
			_, rerr := unix.Pread(fd, mem, off)
			for _, err := range []error{werr, rerr, unix.Fdatasync(fd), blockIoctl(f, unix.BLKDISCARD, uint64(off), 64<<10)} {
				if err != nil {
					t.Fatal(err)
				}
			}
		}
		runtime.ReadMemStats(&after)
		// Go's runtime allocates for itself now and then.
		if n := after.Mallocs - before.Mallocs; n > 4*rounds/100 {
			t.Errorf("zero copy %s: %d allocations for %d requests", zeroCopy, n, 4*rounds)
		}
		if err := dev.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// A table that is refused leaves nothing: no device, and no lock on its disks.
func TestKernelTableRefused(t *testing.T) {
	ctl := ublktest.Kernel(t)
	disks := []string{nullDisk(t, 16, sectorDisk), nullDisk(t, 16, map[string]string{"blocksize": "4096"})}
	for text, want := range map[string]string{
		"0 8 linear $0 0\n8 8 linear $1 32768":                  `line 2: linear: device "$1": 8 sectors from 32768: the device has 32768: invalid`,
		"0 8 linear $0 0\n8 4 linear $1 0":                      `line 2: linear: device "$1": length 4: not a multiple of 8, a logical block of 4096 bytes: invalid`,
		"0 8 zero\n8 8 crypt aes-xts-plain64 :64:user:k 0 $0 0": "line 2: crypt: key: no key",
	} {
		_, err := tryTable(ctl, withDisks(text, disks...), Config{})
		if err == nil || err.Error() != withDisks(want, disks...) {
			t.Errorf("%s: %v", text, err)
		}
	}
	for _, cfg := range []Config{
		{Offset: 512}, {SizeLimit: 512}, {SectorSize: 512}, {Transfer: TransferConfig{Name: "xor"}},
	} {
		if _, err := tryTable(ctl, withDisks("0 8 linear $0 0", disks...), cfg); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
	crypt := withDisks("0 8 crypt aes-xts-plain64 "+hexKey+" 0 $0 0", disks...)
	if _, err := tryTable(ctl, crypt, Config{ZeroCopy: SwitchOn}); !errors.Is(err, unix.EINVAL) {
		t.Errorf("crypt with zero copy: %v", err)
	}
	list, err := List(ctl)
	if err != nil || len(list) != 0 {
		t.Errorf("devices %+v, %v", list, err)
	}
	dev := attachTable(t, ctl, withDisks("0 16 linear $0 0\n16 8 linear $1 0", disks...), Config{})
	if _, err := tryTable(ctl, withDisks("0 8 linear $1 0", disks...), Config{}); !errors.Is(err, unix.EBUSY) {
		t.Errorf("a disk below another device: %v", err)
	}
	ids, err := Find(ctl, openPath(t, disks[1]))
	if err != nil || len(ids) != 1 || ids[0].ID != dev.ID() {
		t.Errorf("devices of the second disk: %v, %v", ids, err)
	}
}
