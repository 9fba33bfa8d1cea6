package backing

import (
	"errors"
	"math"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestExtent(t *testing.T) {
	for _, tt := range []struct {
		name                 string
		total, offset, limit uint64
		sector               uint32
		want                 uint64 // 0 for EINVAL
		hint                 string
	}{
		{"all", 1 << 20, 0, 0, 512, 1 << 20, ""},
		{"one sector", 512, 0, 0, 512, 512, ""},
		{"the last sector", 8192, 4096, 0, 4096, 4096, ""},
		{"a part", 1 << 20, 4096, 8192, 512, 8192, ""},
		{"a limit above what there is", 8192, 4096, 1 << 40, 512, 4096, ""},
		{"the largest limit", 8192, 0, math.MaxUint64 - 511, 512, 8192, ""},
		{"a limit within an odd size", 1000, 0, 512, 512, 512, ""},
		{"the largest file", math.MaxInt64 - 511, 512, 0, 512, math.MaxInt64 - 1023, ""},
		{"empty", 0, 0, 0, 512, 0, "truncate --size"},
		{"empty, with an offset", 0, 512, 0, 512, 0, "truncate --size"},
		{"less than a sector", 511, 0, 0, 512, 0, "truncate --size"},
		{"less than a large sector", 2048, 0, 0, 4096, 0, "truncate --size"},
		{"an odd size", 1000, 0, 0, 512, 0, "{sizelimit=512}"},
		{"an odd size after an offset", 10000, 4096, 0, 4096, 0, "{sizelimit=4096}"},
		{"an odd offset", 8192, 100, 0, 512, 0, ""},
		{"an offset within a sector", 8192, 512, 0, 4096, 0, ""},
		{"an offset at the end", 8192, 8192, 0, 512, 0, ""},
		{"an offset a sector past the end", 8192, 8704, 0, 512, 0, ""},
		{"an offset past the end", 8192, 1 << 40, 0, 512, 0, ""},
		{"an offset of 2^63", 8192, 1 << 63, 0, 512, 0, ""},
		{"the largest offset", 8192, math.MaxUint64 - 511, 4096, 512, 0, ""},
		{"an odd limit", 8192, 0, 1000, 512, 0, "{sizelimit=1024}"},
		{"a limit within a sector", 8192, 0, 512, 4096, 0, "{sizelimit=4096}"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := extent(tt.total, &Options{Offset: tt.offset, SizeLimit: tt.limit}, tt.sector)
			if tt.want != 0 {
				if err != nil || got != tt.want {
					t.Errorf("size %d, error %v, want %d", got, err, tt.want)
				}
				return
			}
			wantHint(t, err, unix.EINVAL, "", tt.hint)
		})
	}
}

// A read-only device may begin anywhere in its file, and one of whole sectors leaves out what
// fills none.
func TestExtentOfParts(t *testing.T) {
	for _, tt := range []struct {
		name  string
		total uint64
		o     Options
		want  uint64 // 0 for EINVAL
	}{
		{"an odd offset", 8292, Options{Offset: 100, ReadOnly: true}, 8192},
		{"an odd offset and a limit", 8192, Options{Offset: 100, ReadOnly: true, SizeLimit: 1024}, 1024},
		{"an odd offset and an odd end", 8192, Options{Offset: 100, ReadOnly: true}, 0},
		{"the same in whole sectors", 8192, Options{Offset: 100, ReadOnly: true, WholeSectors: true}, 7680},
		{"an odd end in whole sectors", 8292, Options{WholeSectors: true}, 8192},
		{"an odd limit in whole sectors", 8192, Options{SizeLimit: 1000, WholeSectors: true}, 512},
		{"an odd offset of a writer", 8192, Options{Offset: 100, WholeSectors: true}, 0},
		{"less than a sector", 8192, Options{Offset: 7700, ReadOnly: true, WholeSectors: true}, 0},
	} {
		got, err := extent(tt.total, &tt.o, 512)
		if got != tt.want || (tt.want == 0) != errors.Is(err, unix.EINVAL) {
			t.Errorf("%s: size %d, error %v, want %d", tt.name, got, err, tt.want)
		}
	}
}

// The value of statfs(2) is the unit of holes only if it can be a block size.
func TestUnitOf(t *testing.T) {
	for blockSize, want := range map[int64]uint32{
		512: 512, 1024: 1024, 4096: 4096, 65536: 65536, 1 << 28: 1 << 28,
		0: 4096, -4096: 4096, 1: 4096, 256: 4096, 511: 4096, 513: 4096, 3000: 4096, 4097: 4096, 6144: 4096, 1 << 29: 4096, 1 << 40: 4096,
	} {
		if got := unitOf(blockSize); got != want {
			t.Errorf("blocks of %d: unit %d, want %d", blockSize, got, want)
		}
	}
}

func TestExtentSaysWhatDoesNotFit(t *testing.T) {
	for _, tt := range []struct {
		total, offset, limit uint64
		want                 string
	}{
		{8192, 100, 0, "offset 100: not a multiple of the sector size 512: "},
		{8192, 9216, 0, "offset 9216: not below the size 8192: "},
		{8192, 0, 100, "size limit 100: not a multiple of the sector size 512: "},
		{100, 0, 0, "100 bytes: less than a sector of 512: "},
		{8292, 0, 0, "8292 bytes: not a multiple of the sector size 512: "},
	} {
		_, err := extent(tt.total, &Options{Offset: tt.offset, SizeLimit: tt.limit}, 512)
		if err == nil || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("error %v, want %q", err, tt.want)
		}
	}
	_, err := extent(8292, &Options{}, 512)
	wantHint(t, err, unix.EINVAL, "", "leave the last 100 bytes out with {sizelimit=8192}")
}

func TestSectorSize(t *testing.T) {
	empty, err := os.Open(newFile(t, "empty", 0))
	if err != nil {
		t.Fatal(err)
	}
	defer empty.Close()
	file, disk512, disk4K, disk16K := Backing{FD: int(empty.Fd())}, Backing{IsDisk: true}, Backing{IsDisk: true}, Backing{IsDisk: true}
	disk512.queue.logicalBlockSize = 512
	disk4K.queue.logicalBlockSize = 4096
	disk16K.queue.logicalBlockSize = 16384
	for _, tt := range []struct {
		name  string
		b     *Backing
		asked uint32
		want  uint32 // 0 for EINVAL
	}{
		{"file", &file, 0, 512},
		{"file", &file, 512, 512},
		{"file", &file, 1024, 1024},
		{"file", &file, 2048, 2048},
		{"file", &file, 4096, 4096},
		{"file", &file, 8192, 0},
		{"file", &file, 256, 0},
		{"file", &file, 1000, 0},
		{"file", &file, 1 << 31, 0},
		{"disk", &disk512, 0, 512},
		{"disk", &disk512, 4096, 4096},
		{"4K disk", &disk4K, 0, 4096},
		{"4K disk", &disk4K, 4096, 4096},
		{"4K disk", &disk4K, 512, 0},
		{"16K disk", &disk16K, 0, 0},
		{"16K disk", &disk16K, 4096, 0},
	} {
		got, err := tt.b.chooseSectorSize(&Options{SectorSize: tt.asked}, 1<<20)
		switch {
		case tt.want == 0 && !errors.Is(err, unix.EINVAL):
			t.Errorf("%s, asked for %d: %d, error %v, want EINVAL", tt.name, tt.asked, got, err)
		case tt.want != 0 && (err != nil || got != tt.want):
			t.Errorf("%s, asked for %d: %d, error %v, want %d", tt.name, tt.asked, got, err, tt.want)
		}
	}
}
