package loop

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// refusal is a backing that Open refuses.
type refusal struct {
	name string
	make func(t *testing.T) string // makes the backing, and returns its path
	cfg  Config
	want error
	hint string
	// instead is a configuration with which Open succeeds, nil if there is none.
	instead *Config
}

var readOnly = &Config{ReadOnly: true}

var refusals = []refusal{
	{"mounted disk", mountedDisk, Config{}, unix.EBUSY, "{read_only}", readOnly},
	{"disk of a mounted partition", diskOfMountedPartition, Config{}, unix.EBUSY, "{read_only}", readOnly},
	{"write-protected disk", func(t *testing.T) string { return scsiDebugDisk(t, "wp=1") }, Config{}, unix.EROFS, "{read_only}", readOnly},
	{"disk made read-only", func(t *testing.T) string {
		disk := nullDisk(t, 64, nil)
		run(t, "blockdev", "--setro", disk)
		return disk
	}, Config{}, unix.EROFS, "{read_only}", readOnly},
	{"zoned disk", func(t *testing.T) string {
		return nullDisk(t, 64, map[string]string{"zoned": "1", "zone_size": "4", "discard": "0"})
	}, Config{}, unix.EOPNOTSUPP, "{read_only}", readOnly},
	{"disk of swap space", func(t *testing.T) string {
		disk := nullDisk(t, 64, nil)
		swapTo(t, disk)
		return disk
	}, Config{}, unix.EBUSY, "{read_only}", readOnly},
	{"sectors below the disk's", disk4K, Config{SectorSize: 512}, unix.EINVAL, "{sector_size=4096}", &Config{}},
	{"odd offset for the disk", disk4K, Config{Offset: 512}, unix.EINVAL, "{read_only}", &Config{Offset: 4096}},
	{"file of a read-only file system", func(t *testing.T) string {
		path := newFileOn(t, nullDisk(t, 64, nil), "ext4")
		run(t, "mount", "-o", "remount,ro", filepath.Dir(path))
		return path
	}, Config{}, unix.EROFS, "{read_only}", readOnly},
	{"swap file", func(t *testing.T) string {
		path := newFileOn(t, nullDisk(t, 64, nil), "ext4")
		swapTo(t, path)
		return path
	}, Config{}, unix.ETXTBSY, "{read_only}", readOnly},
	{"direct I/O of less than the disk's sectors", fileOn4K, Config{DirectIO: SwitchOn}, unix.EINVAL, "{sector_size=4096}", &Config{SectorSize: 4096, DirectIO: SwitchOn}},
	{"direct I/O at an offset within the disk's sectors", fileOn4K, Config{DirectIO: SwitchOn, SectorSize: 512, Offset: 512}, unix.EINVAL, "{sector_size=4096}", &Config{Offset: 512}},
}

func TestKernelBackingRefuses(t *testing.T) {
	for _, tt := range refusals {
		t.Run(tt.name, func(t *testing.T) {
			ublktest.Kernel(t)
			path := tt.make(t)
			_, err := openFor(t, path, tt.cfg)
			wantHint(t, err, tt.want, path, tt.hint)
			if tt.instead == nil {
				return
			}
			b, err := openFor(t, path, *tt.instead)
			if err != nil {
				t.Fatalf("with %+v: %v", *tt.instead, err)
			}
			if err := b.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// No other process can write to a disk that is attached for writing.
func TestKernelBackingClaimsDisk(t *testing.T) {
	ublktest.Kernel(t)
	disk := nullDisk(t, 64, nil)
	b, err := openFor(t, disk, Config{})
	if err != nil {
		t.Fatal(err)
	}
	if !b.IsDisk || !b.Direct || b.Size != 64<<20 {
		t.Errorf("another disk: %+v", b)
	}
	_, err = openFor(t, disk, Config{})
	wantHint(t, err, unix.EBUSY, disk, "{shared}")
	if f, err := os.OpenFile(disk, os.O_RDWR|unix.O_EXCL, 0); err == nil {
		_ = f.Close()
		t.Error("another can claim it")
	}
	for _, cfg := range []Config{{Shared: true}, {ReadOnly: true}} {
		second, err := openFor(t, disk, cfg)
		if err != nil {
			t.Errorf("%+v: %v", cfg, err)
			continue
		}
		if err := second.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := openFor(t, disk, Config{}); err != nil {
		t.Errorf("after it is closed: %v", err)
	}
}

// Auto chooses direct I/O on a file system that supports it.
func TestKernelBackingDirect(t *testing.T) {
	ublktest.Kernel(t)
	for _, tt := range []struct {
		sectors, kind string
		cfg           Config
		want          bool
	}{
		{"512", "ext4", Config{}, true},
		{"512", "xfs", Config{}, true},
		{"4096", "ext4", Config{}, false},
		{"4096", "ext4", Config{SectorSize: 4096}, true},
		{"4096", "xfs", Config{SectorSize: 2048}, false},
	} {
		t.Run(tt.kind+" on sectors of "+tt.sectors, func(t *testing.T) {
			path := newFileOn(t, nullDisk(t, 320, map[string]string{"blocksize": tt.sectors}), tt.kind)
			b, err := openFor(t, path, tt.cfg)
			if err != nil {
				t.Fatal(err)
			}
			if b.Direct != tt.want || hasDirectFlag(t, b.FD) != tt.want {
				t.Errorf("%+v: direct %v, want %v", tt.cfg, b.Direct, tt.want)
			}
			if p, err := b.Params(ublk.BufferCopy, 1<<20); err != nil || p.Discard.MaxBytes == 0 {
				t.Errorf("no holes, error %v", err)
			}
			if err := b.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func disk4K(t *testing.T) string {
	return nullDisk(t, 64, map[string]string{"blocksize": "4096"})
}

func fileOn4K(t *testing.T) string { return newFileOn(t, disk4K(t), "ext4") }

func mountedDisk(t *testing.T) string {
	disk := nullDisk(t, 64, nil)
	newFileOn(t, disk, "ext4")
	return disk
}

func diskOfMountedPartition(t *testing.T) string {
	disk := nullDisk(t, 64, nil)
	newFileOn(t, partition(t, disk, "2048"), "ext4")
	return disk
}

// swapTo makes a disk or file swap space.
func swapTo(t *testing.T, path string) {
	t.Helper()
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, "mkswap", path)
	run(t, "swapon", path)
	t.Cleanup(func() { run(t, "swapoff", path) })
}

// Reads of a device do not change its file's access time, because each read would then
// cause a write to the file system.
func TestKernelReadsKeepTheAccessTime(t *testing.T) {
	ctl := ublktest.Kernel(t)
	dir := fileSystem(t, "ext4")
	run(t, "mount", "-o", "remount,strictatime", dir)
	path := sparseFile(t, dir)
	accessed := func() unix.Timespec {
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil {
			t.Fatal(err)
		}
		return st.Atim
	}
	dev := attach(t, ctl, path, Config{})
	before := accessed()
	f := openFile(t, dev.Path(), os.O_RDONLY|unix.O_DIRECT)
	if _, err := f.ReadAt(alignedMemory(t, 4096), 0); err != nil {
		t.Fatal(err)
	}
	if after := accessed(); after != before {
		t.Errorf("access time was %v, is %v", before, after)
	}
}
