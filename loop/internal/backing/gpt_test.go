package backing

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/hint"
)

// table is the header of a partition table, as a partitioning tool writes it.
type table []byte

// newTable makes a table for a disk with a number of sectors.
func newTable(sectors uint64) table {
	h := make(table, gptHeaderSize)
	copy(h, gptSignature)
	binary.LittleEndian.PutUint32(h[8:], 0x10000)
	binary.LittleEndian.PutUint32(h[12:], gptHeaderSize)
	binary.LittleEndian.PutUint64(h[24:], 1)
	binary.LittleEndian.PutUint64(h[32:], sectors-1)
	binary.LittleEndian.PutUint64(h[40:], 34)
	binary.LittleEndian.PutUint64(h[48:], sectors-34)
	binary.LittleEndian.PutUint64(h[72:], 2)
	binary.LittleEndian.PutUint32(h[80:], 128)
	binary.LittleEndian.PutUint32(h[84:], 128)
	return h.seal()
}

// seal corrects the checksum over the length in the header.
func (h table) seal() table {
	clear(h[16:20])
	length := min(binary.LittleEndian.Uint32(h[12:]), gptHeaderSize)
	binary.LittleEndian.PutUint32(h[16:], crc32.ChecksumIEEE(h[:length]))
	return h
}

// with sets a field of 8 bytes and corrects the checksum.
func (h table) with(at int, value uint64) table {
	binary.LittleEndian.PutUint64(h[at:], value)
	return h.seal()
}

// writeAt writes into a file.
func writeAt(t *testing.T, path string, b []byte, at int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if _, err := f.WriteAt(b, at); err != nil {
		t.Fatal(err)
	}
}

// The image of a disk gets the disk's sectors.
func TestSectorSizeOfImage(t *testing.T) {
	const mib = 1 << 20
	at := func(offset int64, h table) map[int64]table { return map[int64]table{offset: h} }
	for _, tt := range []struct {
		name   string
		tables map[int64]table
		size   int64
		o      Options
		want   uint32
	}{
		{"no table", nil, mib, Options{}, 512},
		{"for 512", at(512, newTable(2048)), mib, Options{}, 512},
		{"for 1024", at(1024, newTable(1024)), mib, Options{}, 1024},
		{"for 2048", at(2048, newTable(512)), mib, Options{}, 2048},
		{"for 4096", at(4096, newTable(256)), mib, Options{}, 4096},
		{"for 512 and 4096", map[int64]table{512: newTable(2048), 4096: newTable(256)}, mib, Options{}, 512},
		{"a wrong one for 512", map[int64]table{512: newTable(2048).with(24, 2), 4096: newTable(256)}, mib, Options{}, 4096},
		{"asked for", at(4096, newTable(256)), mib, Options{SectorSize: 1024}, 1024},
		{"read-only", at(4096, newTable(256)), mib, Options{ReadOnly: true}, 4096},
		{"at an offset", at(8192+4096, newTable(254)), mib, Options{Offset: 8192}, 4096},
		{"elsewhere", at(4096, newTable(256)), mib, Options{Offset: 8192}, 512},
		{"a short file", nil, 4096, Options{}, 512},
		{"only a signature", at(4096, table(gptSignature)), mib, Options{}, 512},
		{"the second copy", at(4096, newTable(256).with(24, 255)), mib, Options{}, 512},
		{"sectors past the end", at(4096, newTable(256).with(48, 256)), mib, Options{}, 512},
		{"sectors up to the end", at(4096, newTable(256).with(48, 255)), mib, Options{}, 4096},
		{"sectors past the limit", at(4096, newTable(256)), mib, Options{SizeLimit: mib / 2}, 512},
		{"no sectors", at(4096, newTable(256).with(40, 250)), mib, Options{}, 512},
		{"a larger file", at(4096, newTable(256)), 2 * mib, Options{}, 4096},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := newFile(t, "image", tt.size)
			for at, h := range tt.tables {
				writeAt(t, path, h, at)
			}
			b, err := openFor(t, path, tt.o)
			if err != nil {
				t.Fatal(err)
			}
			if b.SectorSize != tt.want {
				t.Errorf("sectors of %d bytes, want %d", b.SectorSize, tt.want)
			}
		})
	}
}

// After a change of any byte, or with a size that does not fit the sector, a header does
// not count as a table.
func TestSectorSizeOfDamagedTable(t *testing.T) {
	path := newFile(t, "image", 1<<20)
	refuse := func(what string, n uint32, h table) {
		t.Run(fmt.Sprint(what, n), func(t *testing.T) {
			writeAt(t, path, h, 4096)
			b, err := openFor(t, path, Options{})
			if err != nil || b.SectorSize != 512 {
				t.Errorf("%+v, %v", b, err)
			}
		})
	}
	for i := range gptHeaderSize {
		h := newTable(256)
		h[i] ^= 0x80
		refuse("byte", uint32(i), h)
	}
	for _, length := range []uint32{0, 91, 4097, 1<<32 - 1} {
		h := newTable(256)
		binary.LittleEndian.PutUint32(h[12:], length)
		refuse("length", length, h.seal())
	}
}

// A read of fewer bytes than asked for is not a read.
func TestReadIsWhole(t *testing.T) {
	b, err := openFor(t, newFile(t, "file", 1024), Options{DirectIO: SwitchOff})
	if err != nil {
		t.Fatal(err)
	}
	for offset, want := range map[uint64]bool{0: true, 512: true, 513: false, 1023: false, 1024: false, 1 << 63: false} {
		if got, err := b.read(make([]byte, 512), offset); got != want || (err != nil) != (offset == 1<<63) {
			t.Errorf("512 of 1024 bytes at %d: %v, error %v", offset, got, err)
		}
	}
}

// If the place of the table cannot be read, the sector size is unknown.
func TestSectorSizeOfUnreadableImage(t *testing.T) {
	memory, err := os.Open("/proc/self/mem") // nothing is at its start
	if err != nil {
		t.Fatal(err)
	}
	defer memory.Close()
	b := &Backing{FD: int(memory.Fd()), File: memory}
	size, err := b.chooseSectorSize(&Options{}, 1<<20)
	if h := (*hint.Error)(nil); !errors.Is(err, unix.EIO) || !errors.As(err, &h) || !strings.Contains(h.Hint, "{sector_size=512}") {
		t.Errorf("sectors of %d bytes, error %v", size, err)
	}
	if size, err := b.chooseSectorSize(&Options{SectorSize: 512}, 1<<20); err != nil || size != 512 {
		t.Errorf("sectors of %d bytes, error %v", size, err)
	}
}

// A file that does not consist of whole sectors of its partition table is refused with a
// hint, because its partitions would be missing with any other sector size.
func TestSectorSizeOfImageWithRest(t *testing.T) {
	path := newFile(t, "image", 1<<20+512)
	writeAt(t, path, newTable(256), 4096)
	_, err := openFor(t, path, Options{})
	wantHint(t, err, unix.EINVAL, "partition table of sectors of 4096 bytes", "{sizelimit=1048576}")
	for want, o := range map[uint32]Options{4096: {SizeLimit: 1 << 20}, 512: {SectorSize: 512}} {
		t.Run(fmt.Sprint(want), func(t *testing.T) {
			b, err := openFor(t, path, o)
			if err != nil || b.SectorSize != want {
				t.Errorf("%+v, %v", b, err)
			}
		})
	}
	writeAt(t, path, newTable(256), 512+4096)
	writeAt(t, path, make([]byte, 512), 4096)
	_, err = openFor(t, path, Options{Offset: 512})
	wantHint(t, err, unix.EINVAL, "offset 512: not a multiple of the sector size 4096", "{sector_size=512}")
}
